"""SCoRe and what it is compared with: the decisions that make each differ."""
