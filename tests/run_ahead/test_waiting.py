"""`tests/engine/test_waiting.py`, steps run ahead."""

from __future__ import annotations

import pytest

from tests.engine.test_waiting import *  # noqa: F403

pytestmark = pytest.mark.slow
