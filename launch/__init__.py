"""One command that runs the same job on many targets.

It starts programs and reads what they say, with the standard library alone, so
that it runs where nothing is installed; training needs none of it.
`docs/launch.md` says what it does, what it creates and what it deletes.
"""
