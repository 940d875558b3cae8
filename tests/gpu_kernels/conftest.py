"""GPU kernels: on the GPU where there is one, else in Triton's interpreter, a hundred thousand times slower."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture(scope="session")
def device() -> str:
    """Where the kernels run."""
    if torch.cuda.is_available():
        return "cuda"
    from headrace.model.triton_kernels.device.language import INTERPRETED

    if not INTERPRETED:
        pytest.skip("no GPU, and TRITON_INTERPRET was not set before triton was imported")
    return "cpu"
