"""What the operating system says of the machine. Linux tells all of it; elsewhere what is not known is None."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_INSTRUCTION_SETS = {
    "x86_64": {
        "avx2": "avx2",
        "avx512": "avx512f",
        "vnni": "avx512_vnni",
        "bf16": "avx512_bf16",
        "amx": "amx_tile",
    },
    "aarch64": {"neon": "asimd", "dotprod": "asimddp", "bf16": "bf16", "i8mm": "i8mm", "sve": "sve"},
}
"""By architecture: our name for each set that matters to inference, and the kernel's name for it."""


def cpu() -> dict[str, Any]:
    """Model, cores and instruction sets."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    sets = _INSTRUCTION_SETS.get(platform.machine(), {})
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "num_cores": os.cpu_count(),
        "num_usable_cores": _usable_cores(),
        "instruction_sets": {name: flag in flags for name, flag in sets.items()} if flags else None,
    }


def memory() -> dict[str, int | None]:
    """Bytes of the host, and the limit of the control group that this process is in."""
    fields = _fields(Path("/proc/meminfo"))
    return {
        "total_bytes": _kibibytes(fields.get("MemTotal")),
        "available_bytes": _kibibytes(fields.get("MemAvailable")),
        "cgroup_limit_bytes": _cgroup_limit(),
    }


def _usable_cores() -> float | None:
    """Cores that this process may use: its affinity, and the control group's share of time."""
    cores: float | None = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = (_read(Path("/sys/fs/cgroup/cpu.max")) or "max").partition(" ")
    if cores is None or quota == "max":
        return cores
    return min(cores, int(quota) / int(period))


def _cgroup_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(Path(path))
        if limit is not None and limit != "max" and int(limit) < 1 << 60:  # version 1 writes "none" as 2**63
            return int(limit)
    return None


def _cpuinfo() -> dict[str, str]:
    """The first core's entries."""
    text = _read(Path("/proc/cpuinfo")) or ""
    return _entries(text.split("\n\n")[0])


def _fields(path: Path) -> dict[str, str]:
    return _entries(_read(path) or "")


def _entries(text: str) -> dict[str, str]:
    parts = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in parts}


def _kibibytes(text: str | None) -> int | None:
    return None if text is None else int(text.split()[0]) << 10


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
