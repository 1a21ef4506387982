"""What to try and how a trial runs. Nothing in here knows where it runs."""
