"""The places that a search can run in."""
