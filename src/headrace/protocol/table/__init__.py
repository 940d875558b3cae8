"""THE table: every field of every endpoint, once."""

from __future__ import annotations

from headrace.protocol.table.endpoints import ENDPOINTS, Endpoint

__all__ = ["ENDPOINTS", "Endpoint"]
