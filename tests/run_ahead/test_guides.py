"""`tests/guides/test_scheduling.py`, steps run ahead: a guided row makes the next step wait for its token."""

from __future__ import annotations

from tests.guides.conftest import *  # noqa: F403
from tests.guides.test_scheduling import *  # noqa: F403
