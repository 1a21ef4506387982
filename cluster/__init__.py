"""Where a search runs, and the command line."""
