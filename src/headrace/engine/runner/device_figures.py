"""How full and how busy the accelerator is."""

from __future__ import annotations

import torch


def device_figures(device: torch.device) -> tuple[int | None, int | None, float | None]:
    """Bytes used, bytes in all, and utilisation (0..1); None where it cannot be read, all of them for a CPU."""
    if device.type != "cuda":
        return None, None, None
    free, total = torch.cuda.mem_get_info(device)
    try:
        utilisation = torch.cuda.utilization(device) / 100.0
    except (ModuleNotFoundError, RuntimeError):  # it needs NVIDIA's management library
        utilisation = None
    return total - free, total, utilisation
