"""Ray Tune drives the loop; the chief stays what decides, writes and answers."""
