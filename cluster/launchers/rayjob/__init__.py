"""KubeRay as a place: a RayJob, on whose head the search runs by engine `ray`."""
