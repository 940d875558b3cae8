"""Kernels opened once per instruction set that runs here and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from headrace.model.kernels.library import LIBRARY_PATH, Kernels, available_isas, open_kernels

Open = Callable[[int], Kernels]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Test another build of the library; test_sanitizers.py uses it."""
    parser.addoption("--kernel-library", type=Path)


def library_under_test(config: pytest.Config) -> Path:
    """The package's own library, or the one that was named."""
    named: Path | None = config.getoption("--kernel-library", default=None)
    return named or LIBRARY_PATH


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that opens kernels runs once for each instruction set."""
    if "open_isa" in metafunc.fixturenames:
        isas = available_isas(library_under_test(metafunc.config)) or ["none"]
        metafunc.parametrize("open_isa", isas, indirect=True, scope="session")


@pytest.fixture(scope="session")
def open_isa(request: pytest.FixtureRequest) -> Open:
    """Opens the instruction set under test with so many threads."""
    isa: str = request.param
    if isa == "none":
        pytest.skip("the CPU kernels were not built: python hatch_build.py")
    path = library_under_test(request.config)
    return cache(lambda num_threads: open_kernels(isa, num_threads, path))
