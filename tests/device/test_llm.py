"""`tests/engine/test_llm.py` on the runner for devices, steps run ahead, without graphs."""

from __future__ import annotations

import pytest

from tests.engine.test_llm import *  # noqa: F403

pytestmark = pytest.mark.slow
