"""What ran on the machine while something was measured. Linux tells; elsewhere there is nothing to know."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


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


def other_cores(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """How many cores were busy with something else than the group in between, on average."""
    if before is None or after is None:
        return None
    others_s = after.machine_s - before.machine_s - (after.group_s - before.group_s)
    return max(0.0, others_s / (after.wall_s - before.wall_s))


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
