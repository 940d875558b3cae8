"""Where replicas come from: sources of full sets behind one interface.

Adding a source (DNS, Consul, etcd, Kubernetes) is one file with an async iterator.
"""

from headrace.gateway.discovery.hub import DiscoveryHub
from headrace.gateway.discovery.source import Source, parse_endpoint

__all__ = ["DiscoveryHub", "Source", "parse_endpoint"]
