"""How much memory there is to give."""

from __future__ import annotations

import torch

from headrace.observability import machine

_UNKNOWN_BYTES = 4 << 30
"""Taken where the system does not say."""


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on the device: free CUDA memory, or the host's within its cgroup."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return machine.available_memory_bytes() or _UNKNOWN_BYTES
