"""What torch can compute on here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headrace.model.memory import available_bytes


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device.

    Attributes:
        name: as the setting `device` takes it.
        description: the product's name; for the CPU, the threads that torch uses.
        available_bytes: memory that can still be allocated.
    """

    name: str
    description: str
    available_bytes: int


def devices() -> list[DeviceInfo]:
    """All devices; the first is the one that `device="auto"` takes."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    found = [DeviceInfo(name, torch.cuda.get_device_name(name), available_bytes(torch.device(name))) for name in names]
    threads = f"{torch.get_num_threads()} torch threads"
    return [*found, DeviceInfo("cpu", threads, available_bytes(torch.device("cpu")))]
