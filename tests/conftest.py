"""What all tests share: one core each, no files left behind, small models and a small tokenizer."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Triton kernels are tested in its interpreter where there is no GPU; read when triton is imported.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Time limits of single examples would make tests depend on how busy the machine is. `database=None`: no files.
_COMMON: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=15, **_COMMON)  # of `make check`
settings.register_profile("default", max_examples=40, **_COMMON)
settings.register_profile("thorough", max_examples=1500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


gc.disable()  # until all is imported, which makes a million objects that stay


def pytest_collection_finish() -> None:
    """What tests throw away is collected, what was imported for them is not gone through each time (0.3 s)."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Native libraries call it a leak at the exit where cycles are kept."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side, so each keeps to one core."""
    import torch

    torch.set_num_threads(1)
