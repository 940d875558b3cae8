"""`tests/guides/test_scheduling.py`, steps run ahead: a guided row makes the next step wait for its token."""

from __future__ import annotations

import pytest

from tests.guides.conftest import *  # noqa: F403
from tests.guides.test_scheduling import *  # noqa: F403

pytestmark = pytest.mark.slow  # the same tests run without it in the fast part
