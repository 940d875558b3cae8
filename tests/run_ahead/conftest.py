"""Other directories' tests once more, with every engine's steps run ahead, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.engine import assembly
from tests.engine.conftest import *  # noqa: F403  # the fixtures of the tests that are run here once more
from tests.engine.simulation import Simulation


@pytest.fixture(autouse=True, scope="module")
def everything_runs_ahead() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assembly, "runs_ahead", lambda wanted, device_type: True)
        patched.setattr(Simulation, "runs_ahead", True)
        yield
