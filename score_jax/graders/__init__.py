"""Graders: a problem and an attempt's text in, an Outcome out."""
