"""Backends of a benchmark, in processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from headrace.bench.gateway.backend import BackendSettings
from headrace.bench.gateway.processes import Running, free_port, wait_until_answers


def start_backend(settings: BackendSettings, folder: Path, core: int | None) -> tuple[Running, int]:
    """Start a backend, on a free port unless one is given; returns it and its port. Raises BenchmarkFailed."""
    if settings.port == 0:
        settings = msgspec.structs.replace(settings, port=free_port())
    argv = [sys.executable, "-m", "headrace.bench.gateway.backend", msgspec.json.encode(settings).decode()]
    backend = Running(argv, folder / f"{settings.name}.log", core)
    try:
        wait_until_answers(backend, settings.port, "/health")
    except BaseException:
        backend.stop()
        raise
    return backend, settings.port
