"""The cases of `gpu_cases`; skipped where there is no CUDA device, and then not shown to hold."""

from __future__ import annotations

import pytest
import torch

from tests.device.gpu_cases import CASES


@pytest.fixture(autouse=True, scope="module")
def on_a_device() -> None:
    """The engine as it is: nothing is put in the place of its runner."""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name: str) -> None:
    CASES[name]()
