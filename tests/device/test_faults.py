"""`tests/engine/test_faults.py` on the runner for devices, steps run ahead, without graphs."""

from __future__ import annotations

import pytest

from tests.run_ahead.test_faults import *  # noqa: F403

pytestmark = pytest.mark.slow
