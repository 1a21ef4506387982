"""What the rest is built with and no user meets."""
