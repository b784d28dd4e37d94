"""What a run's model wrote, all of it, as one page to search and to compare.

Read in this order: `data` makes columns of a run's trajectories, `build` puts
them and `assets/viewer.*` into one HTML file.
"""
