"""What the process environment says; the one place that reads it.

HEADRACE_CPU_ISA      the CPU kernels' instruction set: avx512bf16, avx512vnni, avx512, avx2 or portable
HEADRACE_CPU_THREADS  their threads, the calling one included
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CpuEnvironment:
    """How the CPU kernels should run; None: worked out from the machine."""

    isa: str | None = None
    num_threads: int | None = None


def read_cpu_environment(environ: Mapping[str, str] | None = None) -> CpuEnvironment:
    """Read the HEADRACE_CPU_… variables of `environ` (None: the process's). Raises ConfigError."""
    environ = os.environ if environ is None else environ
    threads = environ.get("HEADRACE_CPU_THREADS") or None
    if threads is not None and not (threads.isdecimal() and int(threads) >= 1):
        raise ConfigError(f"HEADRACE_CPU_THREADS={threads!r} must be an integer of at least 1")
    return CpuEnvironment(environ.get("HEADRACE_CPU_ISA") or None, int(threads) if threads else None)
