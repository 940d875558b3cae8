"""The gateway: many replicas behind one address."""
