"""A Ray cluster as a place to search in, by its job submission."""
