"""A search on Kubernetes, as the manifests in `k8s/` have it."""
