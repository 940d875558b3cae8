"""`tests/engine/test_faults.py`, steps run ahead."""

from __future__ import annotations

import pytest

from headrace.errors import NonFiniteLogits
from tests.engine.reference import PROMPTS, greedy
from tests.engine.test_faults import *  # noqa: F403
from tests.engine.test_faults import SICK, _ids

pytestmark = pytest.mark.slow


def test_nan_in_an_unfinished_prompt_is_seen_before_its_blocks_are_shared(llm, expected):
    """As there, but that the step after it is under way by then."""
    handle = llm.submit([SICK, *range(10, 60)], greedy(5))
    assert isinstance(handle.result(30).error, NonFiniteLogits)
    assert llm.dump_state()["cache"]["pools"][0]["cached"] == 0
    assert _ids(llm.generate(PROMPTS, greedy(12))) == expected
