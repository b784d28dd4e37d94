"""A run under faults, for as long as one likes; see __main__.py."""
