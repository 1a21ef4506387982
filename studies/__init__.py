"""The studies that come with the project; a name for `run` is a file's, with dashes."""
