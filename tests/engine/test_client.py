"""The engine behind its threads: one end for every request, whoever submits, cancels, stops, raises or dies."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.client import EngineClient
from headrace.engine.outputs import EngineOutput
from headrace.engine.plan import StepPlan, StepResult
from headrace.errors import EngineDead, EngineStopped, InvalidRequest, NonFiniteLogits, QueueFull, RequestCancelled
from tests.engine.outcomes import Outcomes
from tests.engine.simulation import Simulation

ENDLESS: dict[str, Any] = {"max_tokens": 9000, "ignore_eos": True}


class Served(Simulation):
    """A simulation whose core runs behind a client."""

    def __init__(self, max_queue_size: int | None = None, **settings: Any) -> None:
        super().__init__(**{"num_blocks": 4000, **settings})
        self.client = EngineClient(self.core, max_queue_size)
        self.outcomes = Outcomes()
        self.gate = threading.Event()
        self.gate.set()
        self.in_step = threading.Event()
        self.runner.before_step = self._pass_gate

    def _pass_gate(self, plan: StepPlan) -> None:
        self.in_step.set()
        assert self.gate.wait(30)

    def __enter__(self) -> Served:
        self.client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        assert self.client.stop()
        assert not self.outcomes.problems

    def submit(self, prompt: list[int], **options: Any) -> str:
        request = self.make(prompt, **options)
        self.client.submit([request], self.outcomes.take)
        return request.request_id

    def check_over(self) -> None:
        """All that was submitted has ended, with its own tokens, and all blocks are back."""
        assert self.outcomes.ended.keys() == self.requests.keys()
        self.ended, self.tokens = self.outcomes.ended, self.outcomes.tokens
        self.check_tokens()
        self.client.call(lambda core: self.check_empty())


def test_many_threads_submit_at_once():
    with Served(num_blocks=200, max_seqs=16) as engine:
        counter = iter(range(10_000))

        def submit() -> None:
            for _ in range(50):
                i = next(counter)
                engine.submit([1 + i % 40, 2, 3], request_id=f"t{i}", max_tokens=1 + i % 9)

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.outcomes.wait_for(200)
        engine.check_over()


def test_ten_thousand_requests_are_queued():
    with Served(checking=False, max_seqs=64, max_tokens=512, block_size=16) as engine:
        engine.core.raise_if_broken()
        for i in range(10_000):
            engine.submit([1 + i % 40], max_tokens=1)
        engine.outcomes.wait_for(10_000)
        engine.check_over()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=8))
@settings(max_examples=25)
def test_cancel_at_any_moment(fates):
    """Each request is cancelled after so many tokens (0: at once), or runs to its end."""
    with Served(max_seqs=4) as engine:
        names = [engine.submit([1 + i, 2, 3] * 4, max_tokens=10) for i in range(len(fates))]
        for name, (after, cancelled) in zip(names, fates, strict=True):
            if cancelled:
                engine.outcomes.wait_for_tokens(name, after)
                engine.client.cancel(name)
                engine.client.cancel(name)
        engine.outcomes.wait_for(len(names))
        for name, (_, cancelled) in zip(names, fates, strict=True):
            output = engine.outcomes.ended[name]
            assert (output.finish_reason == "cancelled") == isinstance(output.error, RequestCancelled)
            assert cancelled or output.error is None
        engine.check_over()


def test_cancelling_what_is_not_there_is_harmless():
    with Served() as engine:
        engine.client.cancel("nobody")
        name = engine.submit([1, 2], max_tokens=3)
        engine.outcomes.wait_for(1)
        engine.client.cancel(name)
        engine.check_over()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_a_handler_that_raises_has_its_own_request_cancelled(error):
    with Served() as engine:
        calls: list[EngineOutput] = []

        def raises(output: EngineOutput) -> None:
            calls.append(output)
            raise error

        bad = engine.make([1, 2, 3], **ENDLESS)
        engine.client.submit([bad], raises)
        others = [engine.submit([5 + i, 2], max_tokens=20) for i in range(5)]
        engine.outcomes.wait_for(5)
        assert [engine.outcomes.ended[name].error for name in others] == [None] * 5
        engine.client.call(lambda core: None)
        _wait_until(lambda: not engine.client.call(lambda core: core.scheduler.has_requests))
        assert len(calls) == 1
        del engine.requests[bad.request_id]
        engine.check_over()


def test_the_id_of_a_request_whose_handler_raised_is_taken_until_it_has_ended():
    """Else its late terminal output would go to the next request of the same id."""
    with Served(checking=False) as engine:
        engine.core.runner = _Gated(engine)
        raised = threading.Event()

        def raises(output: EngineOutput) -> None:
            engine.gate.clear()
            engine.in_step.clear()
            assert engine.in_step.wait(30)  # a step stands at the gate, so the cancellation comes after it
            raised.set()
            raise ValueError("no")

        engine.client.submit([engine.make([1], request_id="a", **ENDLESS)], raises)
        assert raised.wait(30)
        with pytest.raises(InvalidRequest, match="taken"):
            engine.client.submit([engine.make([2], request_id="b"), engine.make([2], request_id="a")], print)
        engine.gate.set()
        _wait_until(lambda: not engine.client.call(lambda core: core.scheduler.has_requests))
        _wait_until(lambda: _submits(engine, "a"))
        engine.outcomes.wait_for(1)
        assert engine.outcomes.reasons == {"a": "length"}


class _Gated:
    """The simulated runner behind the gate, without the checks (which know one request per id)."""

    def __init__(self, engine: Served) -> None:
        self._engine = engine
        self.close = engine.runner.close

    def execute(self, plan: StepPlan) -> StepResult:
        self._engine._pass_gate(plan)
        return self._engine.runner.inner.execute(plan)


def _submits(engine: Served, name: str) -> bool:
    try:
        engine.submit([7, 7], request_id=name, max_tokens=2, ignore_eos=True)
    except InvalidRequest:
        return False
    return True


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_taken_id_leaves_the_live_request_alone():
    with Served() as engine:
        engine.gate.clear()
        engine.submit([1, 2, 3], request_id="a", max_tokens=5)
        first = engine.requests["a"]
        with pytest.raises(InvalidRequest, match="'a' is taken"):
            engine.client.submit([engine.make([9], request_id="a")], engine.outcomes.take)
        engine.requests["a"] = first
        engine.gate.set()
        engine.outcomes.wait_for(1)
        engine.check_over()


def test_the_bounded_queue_takes_all_or_none():
    with Served(max_queue_size=3, max_seqs=1) as engine:
        engine.gate.clear()
        engine.submit([1, 2, 3], max_tokens=2)
        assert engine.in_step.wait(30)
        for i in range(2):
            engine.submit([2 + i], max_tokens=2)
        pair = [engine.make([7], request_id=f"x{i}", max_tokens=2) for i in range(2)]
        with pytest.raises(QueueFull, match="2 requests wait, 2 more would be over max_queue_size=3"):
            engine.client.submit(pair, engine.outcomes.take)
        del engine.requests["x0"], engine.requests["x1"]
        engine.submit([9], max_tokens=2)
        engine.gate.set()
        engine.outcomes.wait_for(4)
        engine.check_over()


# -------------------------------------------------------------------- stop


@pytest.mark.parametrize("block", [True, False])
def test_stop_ends_what_runs_and_what_waits(block):
    with Served(max_seqs=2) as engine:
        names = [engine.submit([1 + i], **ENDLESS) for i in range(6)]
        engine.outcomes.wait_for_tokens(names[0], 3)
        ended = engine.client.stop(block=block)
        assert ended or not block
        engine.outcomes.wait_for(6)
        assert set(engine.outcomes.reasons.values()) == {"cancelled"}
        assert all(isinstance(output.error, EngineStopped) for output in engine.outcomes.ended.values())
        assert engine.client.stop()
        engine.check_over()
        with pytest.raises(EngineStopped, match="stopped"):
            engine.submit([1])
        with pytest.raises(EngineStopped):
            engine.client.start()


def test_two_threads_and_a_handler_stop_it():
    with Served() as engine:
        engine.client.submit([engine.make([3], **ENDLESS)], lambda output: engine.client.stop())
        name = engine.submit([1], **ENDLESS)
        threads = [threading.Thread(target=engine.client.stop) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        engine.outcomes.wait_for(1)
        assert engine.outcomes.reasons[name] == "cancelled"


def test_stop_waits_for_a_step_no_longer_than_it_is_told():
    with Served() as engine:
        engine.gate.clear()
        engine.submit([1], **ENDLESS)
        assert engine.in_step.wait(30)
        begin = time.monotonic()
        assert engine.client.stop(timeout_s=0.1) is False
        assert time.monotonic() - begin < 5
        with pytest.raises(EngineStopped, match="stopping"):
            engine.submit([1])
        engine.requests.popitem()
        engine.gate.set()
        assert engine.client.stop() is True
        engine.check_over()


def test_an_engine_that_was_never_started_accepts_nothing_and_stops():
    engine = Served()
    with pytest.raises(EngineStopped, match="new"):
        engine.submit([1])
    assert engine.client.stop() is True
    with pytest.raises(EngineStopped):
        engine.client.start()
    assert engine.client.call(lambda core: core.dump_state())["running"] == []


@given(st.integers(0, 15), st.booleans())
@settings(max_examples=20)
def test_stop_in_the_middle(after, block):
    with Served(max_seqs=3) as engine:
        names = [engine.submit([1 + i, 4] * 9, max_tokens=12, ignore_eos=True) for i in range(5)]
        engine.outcomes.wait_for_tokens(names[0], after)
        engine.client.stop(block)
        engine.outcomes.wait_for(5)
        engine.client.stop()
        engine.check_over()


# -------------------------------------------------------------------- death


def _raises(*_: object) -> Any:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("where", ["schedule", "update", "execute"])
def test_an_engine_that_dies_ends_every_request_and_says_why(where):
    with Served(max_seqs=2) as engine:
        closed = []
        engine.runner.close = lambda: closed.append(True)
        names = [engine.submit([1 + i], **ENDLESS) for i in range(5)]
        engine.outcomes.wait_for_tokens(names[0], 2)
        if where == "execute":  # not an exception but a result of the wrong length
            engine.runner.execute = lambda plan: StepResult(())
        else:
            setattr(engine.scheduler, where, _raises)
        engine.outcomes.wait_for(5)
        for output in engine.outcomes.ended.values():
            assert output.finish_reason == "error"
            assert isinstance(output.error, EngineDead)
            assert output.error.__cause__ is not None
        with pytest.raises(EngineDead, match="ValueError" if where == "execute" else "ZeroDivisionError: a bug"):
            engine.submit([1])
        assert not engine.client.is_running
        assert engine.client.stop()
        assert closed == [True]


def test_even_a_scheduler_that_can_no_longer_end_requests_leaves_nobody_waiting():
    with Served(max_seqs=2) as engine:
        engine.gate.clear()
        names = [engine.submit([1 + i], **ENDLESS) for i in range(5)]
        assert engine.in_step.wait(30)
        engine.scheduler.end = engine.scheduler.update = engine.scheduler.add = _raises
        names.append(engine.submit([1]))
        engine.client.cancel(names[0])
        answers: list[object] = []
        caller = threading.Thread(target=lambda: answers.append(engine.client.call(lambda core: "late")))
        caller.start()
        engine.gate.set()
        engine.outcomes.wait_for(6)
        caller.join(30)
        assert answers == ["late"]
        assert set(engine.outcomes.reasons.values()) == {"error"}


# -------------------------------------------------------------------- calls, memory


def test_call_runs_between_steps_or_after_the_end():
    with Served() as engine:
        name = engine.submit([1, 2, 3], **ENDLESS)
        engine.outcomes.wait_for_tokens(name, 2)
        assert engine.client.call(lambda core: threading.current_thread().name) == "headrace-engine"
        with pytest.raises(ZeroDivisionError):
            engine.client.call(_raises)
        assert len(engine.client.call(lambda core: core.dump_state())["running"]) == 1
        engine.gate.clear()
        engine.in_step.clear()
        assert engine.in_step.wait(30)
        engine.client.stop(block=False)
        states: list[Any] = []
        caller = threading.Thread(target=lambda: states.append(engine.client.call(lambda core: core.dump_state())))
        caller.start()
        caller.join(0.05)
        assert not states, "read while a step was under way"
        engine.gate.set()
        caller.join(30)
        assert (states[0]["running"], states[0]["waiting"]) == ([], [])


def test_a_slow_handler_does_not_slow_the_engine():
    with Served() as engine:
        reading = threading.Event()
        engine.client.submit([engine.make([1], max_tokens=100, ignore_eos=True)], lambda output: reading.wait(30))
        _wait_until(lambda: engine.client.call(lambda core: not core.scheduler.has_requests))
        reading.set()


def test_failing_alone_is_what_the_others_do_not_notice():
    with Served(max_seqs=8) as engine:
        engine.runner.nan.add("r2")
        engine.runner.broken.add("r4")
        for i in range(8):
            engine.submit([1 + i, 2, 3] * 5, max_tokens=30)
        engine.outcomes.wait_for(8)
        assert {name for name, reason in engine.outcomes.reasons.items() if reason == "error"} == {"r2", "r4"}
        assert isinstance(engine.outcomes.ended["r2"].error, NonFiniteLogits)
        engine.check_over()


@pytest.mark.slow
def test_memory_returns_to_where_it_was(no_logs):
    """200 rounds of requests that finish, fail, are cancelled, and raise in their handlers."""
    with Served(num_blocks=100, max_seqs=8, checking=False) as engine:
        engine.core._check = True

        def play_round(i: int) -> None:
            outcomes = Outcomes()
            requests = [engine.make([1 + i % 7, j, 3], request_id=f"q{j}", max_tokens=8) for j in range(1, 6)]
            for request in requests[:-1]:
                engine.client.submit([request], outcomes.take)
            engine.client.submit(requests[-1:], _raises)
            engine.client.cancel("q2")
            outcomes.wait_for(4)
            _wait_until(lambda: not engine.client.call(lambda core: core.scheduler.has_requests))
            engine.client.call(lambda core: core.recent_steps.clear())

        def measure() -> int:
            engine.requests.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            for i in range(20):
                play_round(i)
            before = measure()
            for i in range(200):
                play_round(i)
            after = measure()
        finally:
            tracemalloc.stop()
        assert after - before < 50_000
        engine.client.call(lambda core: core.raise_if_broken())
        assert engine.client.call(lambda core: core.dump_state())["cache"]["pools"][0]["used"] == 0


def test_a_stopped_engine_is_let_go():
    engine = Served()
    with engine:
        engine.submit([1, 2], max_tokens=3)
        engine.outcomes.wait_for(1)
    client = weakref.ref(engine.client)
    del engine
    gc.collect()
    assert client() is None
