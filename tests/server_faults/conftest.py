"""One server with a simulated engine, slow enough that answers can be caught in the middle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.process import Server, is_idle, seconds_until, serving, simulated

STEP_S = 0.01


@pytest.fixture(scope="session")
def _shared() -> Iterator[Server]:
    with serving("builtin", *simulated(step_s=STEP_S), "--check-integrity") as server:
        yield server


@pytest.fixture
def server(_shared: Server) -> Iterator[Server]:
    """Idle at the beginning of each test, and at its end."""
    seconds_until(lambda: is_idle(_shared.state()))
    yield _shared
    seconds_until(lambda: is_idle(_shared.state()))
    assert _shared.get("/admin/integrity").status_code == 200
