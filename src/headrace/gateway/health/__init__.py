"""Which replicas are able to take a request."""
