"""`tests/engine/test_continuation.py`, steps run ahead."""

from __future__ import annotations

import pytest

from tests.engine.test_continuation import *  # noqa: F403

pytestmark = pytest.mark.slow
