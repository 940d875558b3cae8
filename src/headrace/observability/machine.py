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
        "cgroup_limit_bytes": _cgroup_bytes("memory.max", "memory.limit_in_bytes"),
    }


def available_memory_bytes() -> int | None:
    """Bytes that this process can still take: of the host, and of its control group."""
    available = memory()["available_bytes"]
    limit = _cgroup_bytes("memory.max", "memory.limit_in_bytes")
    used = _cgroup_bytes("memory.current", "memory.usage_in_bytes")
    if limit is None or used is None:
        return available
    left = max(limit - used, 0)
    return left if available is None else min(available, left)


def process_rss_bytes() -> int | None:
    """Bytes of this process that are in memory."""
    fields = (_read(Path("/proc/self/statm")) or "").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None


def usable_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_threads() -> int:
    """Threads that can all run at a time; more of them, where the control group allows less, are stopped together."""
    return max(1, int(_usable_cores()))


def _usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Cores that this process may use: its affinity, and the control group's share of time."""
    quota, _, period = (_read(cpu_max) or "max").partition(" ")
    return usable_cpus() if quota == "max" else min(usable_cpus(), int(quota) / int(period))


def _cgroup_bytes(version_2: str, version_1: str) -> int | None:
    """A figure of the control group's memory controller; None where there is none, or no limit."""
    for path in (f"/sys/fs/cgroup/{version_2}", f"/sys/fs/cgroup/memory/{version_1}"):
        value = _read(Path(path))
        if value is not None and value != "max" and int(value) < 1 << 60:  # version 1 writes "none" as 2**63
            return int(value)
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
