"""`tests/engine/test_llm.py`, steps run ahead."""

from __future__ import annotations

import pytest

from tests.engine.test_llm import *  # noqa: F403

pytestmark = pytest.mark.slow
