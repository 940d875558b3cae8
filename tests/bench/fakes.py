"""Contenders for tests: real processes around an engine that only counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.bench.comparison import Conditions, Contender
from headrace.bench.engines import EngineSpec
from headrace.bench.workloads import Request, Workload


class FakeSpec(EngineSpec):
    """An engine of this folder; every name is driven by the same adapter."""

    @property
    def adapter(self) -> Path:
        return Path(__file__).parent / "fake_engines" / "counting.py"


def contender(name: str, **options: Any) -> Contender:
    return Contender(FakeSpec(name), Path("nowhere"), options=options)


def conditions(
    *, levels: tuple[int, ...] = (4,), repeats: int = 2, timeout_s: float = 60.0, dtype: str = "float32"
) -> Conditions:
    requests = tuple(Request((10 * i, 10 * i + 1), 5 + i) for i in range(1, 5))
    return Conditions(Workload("four", 0, requests), dtype, 1, levels, repeats, timeout_s)
