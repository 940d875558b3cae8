"""Kernels opened once per instruction set that runs here and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from headrace.model.kernels.library import Kernels, available_isas, open_kernels

Open = Callable[[int], Kernels]


@pytest.fixture(scope="session", params=available_isas() or ["none"])
def open_isa(request: pytest.FixtureRequest) -> Open:
    """Opens the instruction set under test with so many threads."""
    if request.param == "none":
        pytest.skip("the CPU kernels were not built: python hatch_build.py")
    return cache(lambda num_threads: open_kernels(request.param, num_threads))
