"""`tests/engine/test_client.py`, steps run ahead."""

from __future__ import annotations

import pytest

from headrace.engine.plan import StepResult
from headrace.errors import EngineDead
from tests.engine.test_client import *  # noqa: F403
from tests.engine.test_client import ENDLESS, Served, _raises

pytestmark = pytest.mark.slow

del test_an_engine_that_dies_ends_every_request_and_says_why  # noqa: F821  # patches what is not called ahead
del test_the_id_of_a_request_whose_handler_raised_is_taken_until_it_has_ended  # noqa: F821  # a runner that cannot


@pytest.mark.parametrize("where", ["schedule_ahead", "update", "collect"])
def test_an_engine_that_dies_ends_every_request(where):
    with Served(max_seqs=2) as engine:
        closed = []
        engine.runner.close = lambda: closed.append(True)
        names = [engine.submit([1 + i], **ENDLESS) for i in range(5)]
        engine.outcomes.wait_for_tokens(names[0], 2)
        if where == "collect":  # not an exception but a result of the wrong length
            engine.runner.collect = lambda handle: StepResult(())
        else:
            setattr(engine.scheduler, where, _raises)
        engine.outcomes.wait_for(5)
        assert all(isinstance(output.error, EngineDead) for output in engine.outcomes.ended.values())
        assert engine.client.stop()
        assert closed == [True]
