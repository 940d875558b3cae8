"""Engines whose runner is the one for devices, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.config import EngineConfig
from headrace.engine import assembly
from headrace.engine.runner.device_runner import DeviceRunner
from headrace.model.attention import registry
from headrace.model.paged_model import PagedModel
from tests.device.capturable import CapturableReference, Recorded
from tests.engine.conftest import *  # noqa: F403  # its fixtures


@pytest.fixture(scope="module")
def graphs() -> list[Recorded]:
    """Captured by the module's engines, in order."""
    return []


@pytest.fixture(autouse=True, scope="module")
def on_a_device(graphs: list[Recorded]) -> Iterator[None]:
    """The runner for devices, and steps run ahead."""

    def capture(function: Callable[[], None]) -> Recorded:
        graphs.append(Recorded(function))
        return graphs[-1]

    def make(paged: PagedModel, config: EngineConfig) -> Any:
        assert config.max_num_seqs is not None and config.max_model_len is not None
        factory = capture if assembly.uses_graphs(config) else None
        return DeviceRunner(paged, config.block_size, config.max_num_seqs, config.max_model_len, factory)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assembly, "runs_ahead", lambda wanted, device_type: wanted is not False)
        patched.setattr(assembly, "make_runner", make)
        patched.setitem(registry._factories, "capturable", CapturableReference)
        yield
