"""What the figures were measured on, and what else ran on it meanwhile. Linux tells; elsewhere fields are None."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TELLING_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
)
_PROC = Path("/proc")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, and the instruction sets that kernels choose by."""
    info = _cpu_info()
    flags = info.get("flags", info.get("Features", "")).split()
    return {
        "cpu": info.get("model name", platform.processor() or platform.machine()),
        "cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.release()}",
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since some moment: by the clock, and of processors, by the whole machine and by one process group."""

    wall_s: float
    machine_s: float
    group_s: float

    @classmethod
    def now(cls, group_id: int) -> CpuTimes | None:
        """Read the clocks; None where the system has no /proc."""
        try:
            ticks = os.sysconf("SC_CLK_TCK")
            return cls(time.monotonic(), _machine_ticks() / ticks, _group_ticks(group_id) / ticks)
        except (OSError, ValueError):
            return None


def _machine_ticks() -> int:
    """Ticks in which a core was not idle; time that a hypervisor took for others counts as busy."""
    fields = (_PROC / "stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return user + nice + system + irq + softirq + steal


def _group_ticks(group_id: int) -> int:
    """Ticks of all processes of a group, and of their children that have ended."""
    total = 0
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # "pid (command) state ppid pgrp …": the command may hold spaces and parentheses.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[2]) == group_id:
            total += sum(map(int, fields[11:15]))
    return total


def _cpu_info() -> dict[str, str]:
    """The first processor's part of /proc/cpuinfo."""
    try:
        first = (_PROC / "cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
