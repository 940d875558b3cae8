"""What clients may ask of a gateway."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """What one connection may ask of the gateway.

    Attributes:
        max_header_bytes: of one request. max_body_bytes: likewise. max_pipelined: requests read ahead.
        read_timeout_s: for a request to be complete, from its first byte. idle_timeout_s: between two requests.
        linger_s: how long a client that was refused has to read why. sweep_s: how often the times are looked at.
    """

    max_header_bytes: int = 64 * 1024
    max_body_bytes: int = 64 * 1024 * 1024
    max_pipelined: int = 16
    read_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    linger_s: float = 1.0
    sweep_s: float = 1.0
