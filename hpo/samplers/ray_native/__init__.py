"""Ray Tune's own samplers, for comparison. Ray is imported when one is made."""
