"""Who drives the loop of asking, running and telling."""
