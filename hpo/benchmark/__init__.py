"""Which search is worth its hours: a matrix of searches, replay, statistics, reports."""
