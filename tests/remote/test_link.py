"""What every EngineLink does: the engine in a process of its own, and the one in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.config import EngineConfig
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote import EngineLink, EngineSpec
from headrace.engine.remote.building import build
from headrace.engine.remote.local import LocalEngine
from headrace.engine.remote.process import EngineProcess
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import (
    EngineStopped,
    EngineUnresponsive,
    InvalidParameter,
    InvalidRequest,
    PromptTooLong,
    QueueFull,
    QueueTimeout,
    RequestCancelled,
)
from tests.remote.harness import Outcomes, eventually, run, spec

MAKERS: dict[str, Callable[..., Any]] = {
    "process": lambda given, **options: EngineProcess(given, **options),
    "local": lambda given, **options: LocalEngine(partial(build, given), **options),
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which of them."""
    return str(request.param)


@asynccontextmanager
async def link(
    kind: str, given: EngineSpec | None = None, **options: Any
) -> AsyncIterator[tuple[EngineLink, Outcomes]]:
    made: EngineLink = MAKERS[kind](given or spec(), **options)
    await made.start()
    outcomes = Outcomes(made)
    try:
        yield made, outcomes
    finally:
        await made.stop(0.0)
        assert made.state == "stopped"
        assert not outcomes.problems


def test_both_give_the_same_tokens_and_tell_the_same_of_themselves() -> None:
    found: dict[str, Any] = {}

    async def main() -> None:
        for kind in MAKERS:
            async with link(kind) as (engine, outcomes):
                assert engine.info is not None
                await eventually(lambda engine=engine: engine.stats is not None, "figures before there is work")
                for i in range(20):
                    outcomes.submit(f"r{i}", [i, 2, 3], max_tokens=5 + i, seed=i, logprobs=1 if i % 3 else None)
                outcomes.submit("both", n=2, prompt_logprobs=1)
                await outcomes.end_of()
                told = engine.info.vocab_size, engine.info.max_model_len, engine.info.block_size, engine.info.model_name
                last = [(o.finish_reason, o.new_logprobs, o.prompt_logprobs) for _, o in sorted(outcomes.ended.items())]
                found[kind] = outcomes.tokens, told, last

    run(main)
    assert found["process"] == found["local"]
    assert len(found["local"][0]["r19"]) == 24


def test_the_states_are_told_in_their_order(kind: str) -> None:
    states: list[str] = []

    async def main() -> None:
        async with link(kind, on_change=states.append) as (engine, _):
            assert (engine.state, engine.trouble) == ("ready", None)
        assert engine.trouble == "it was stopped"

    run(main)
    assert states == ["starting", "ready", "stopped"]


def test_nothing_is_accepted_before_the_start_and_after_the_stop(kind: str) -> None:
    async def main() -> None:
        made: EngineLink = MAKERS[kind](spec())
        with pytest.raises(EngineStopped, match="not ready yet"):
            _ = made.intake
        with pytest.raises(EngineStopped, match="new"):
            made.submit([], print)
        await made.start()
        with pytest.raises(EngineStopped, match="started once"):
            await made.start()
        requests = made.intake.requests([1], SamplingParams(), "late")
        await made.stop(None)
        with pytest.raises(EngineStopped, match="stopped"):
            made.submit(requests, print)
        with pytest.raises(EngineStopped, match="nobody to ask"):
            await made.call("state")
        made.cancel("late")

    run(main)


def test_an_engine_that_was_never_started_can_be_stopped(kind: str) -> None:
    async def main() -> None:
        made: EngineLink = MAKERS[kind](spec())
        await made.stop(None)
        assert made.state == "stopped"

    run(main)


def test_bad_requests_are_refused_before_they_are_sent(kind: str) -> None:
    async def main() -> None:
        async with link(kind) as (engine, outcomes):
            with pytest.raises(PromptTooLong):
                engine.intake.requests([1] * 2000, SamplingParams(), "long")
            with pytest.raises(InvalidParameter):
                engine.intake.requests([1], SamplingParams(stop_token_ids=(5000,)), "out")
            outcomes.submit("a", max_tokens=500)
            with pytest.raises(InvalidRequest, match="'a' is taken"):
                outcomes.submit("a")

    run(main)


def test_a_cancelled_request_ends_as_cancelled_and_gives_its_blocks_back(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.002)) as (engine, outcomes):
            outcomes.submit("a", max_tokens=900)
            outcomes.submit("b", max_tokens=20)
            await outcomes.tokens_of("a", 3)
            engine.cancel("a")
            engine.cancel("a")
            engine.cancel("nobody")
            await outcomes.end_of()
            assert isinstance(outcomes.ended["a"].error, RequestCancelled)
            assert outcomes.ended["a"].finish_reason == "cancelled"
            assert len(outcomes.tokens["b"]) == 20
            assert (await engine.call("integrity"))["problems"] == []
            state = await engine.call("state")
            assert (state["running"], state["cache"]["pools"][0]["used"]) == ([], 0)

    run(main)


def test_a_sink_that_raises_loses_its_own_request_alone(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.001)) as (engine, outcomes):
            calls: list[EngineOutput] = []

            def raises(output: EngineOutput) -> None:
                calls.append(output)
                raise ValueError("no")

            engine.submit(engine.intake.requests([9], SamplingParams(max_tokens=900, ignore_eos=True), "bad"), raises)
            outcomes.submit("good", max_tokens=30)
            await outcomes.end_of()
            assert len(outcomes.tokens["good"]) == 30
            assert len(calls) == 1
            state = await engine.call("state")
            assert state["running"] == []

    run(main)


def test_a_sink_may_submit_and_cancel(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.001)) as (engine, outcomes):

            def chained(output: EngineOutput) -> None:
                if output.finished:
                    outcomes.submit("next")
                    engine.cancel("endless")

            outcomes.submit("endless", max_tokens=900)
            engine.submit(engine.intake.requests([9], SamplingParams(max_tokens=2, ignore_eos=True), "first"), chained)
            await outcomes.until(lambda: "next" in outcomes.tokens)
            await outcomes.end_of("next", "endless")
            assert outcomes.ended["endless"].finish_reason == "cancelled"

    run(main)


def test_stopping_lets_what_runs_finish(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.002)) as (engine, outcomes):
            for i in range(40):  # more than run at a time
                outcomes.submit(f"r{i}", max_tokens=20)
            stop = asyncio.create_task(engine.stop(None))
            await asyncio.sleep(0)
            with pytest.raises(EngineStopped, match="stopping"):
                outcomes.submit("late")
            del outcomes.tokens["late"]
            await stop
            assert {o.finish_reason for o in outcomes.ended.values()} == {"length"}
            assert len(outcomes.ended) == 40

    run(main)


def test_at_the_deadline_what_still_runs_is_cancelled(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.005)) as (engine, outcomes):
            outcomes.submit("long", max_tokens=1900)
            outcomes.submit("short", max_tokens=3)
            await engine.stop(0.3)
            assert outcomes.ended["short"].finish_reason == "length"
            assert outcomes.ended["long"].finish_reason == "cancelled"
            assert isinstance(outcomes.ended["long"].error, EngineStopped)

    run(main)


def test_a_second_stop_with_an_earlier_deadline_wins(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.005)) as (engine, outcomes):
            outcomes.submit("long", max_tokens=1900)
            patient = asyncio.create_task(engine.stop(None))
            await outcomes.tokens_of("long")
            await engine.stop(0.0)
            await patient
            assert outcomes.ended["long"].finish_reason == "cancelled"

    run(main)


def test_a_request_that_waits_too_long_ends_while_others_run(kind: str) -> None:
    async def main() -> None:
        config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=64)
        async with link(kind, spec(step_s=0.005, config=config)) as (_, outcomes):
            outcomes.submit("long", max_tokens=100)
            await outcomes.tokens_of("long")
            outcomes.submit("impatient", queue_timeout_s=0.1)
            outcomes.submit("patient", queue_timeout_s=30.0)
            await outcomes.end_of("impatient")
            error = outcomes.ended["impatient"].error
            assert isinstance(error, QueueTimeout)
            assert "its limit is 0.1 s" in str(error)
            assert "long" not in outcomes.ended
            await outcomes.end_of()
            assert outcomes.ended["patient"].finish_reason == outcomes.ended["long"].finish_reason == "length"

    run(main)


def test_priorities_and_begun_answers_reach_the_scheduler(kind: str) -> None:
    async def main() -> None:
        config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=64)
        async with link(kind, spec(step_s=0.002, config=config)) as (_, outcomes):
            outcomes.submit("whole", max_tokens=30, temperature=0.9)
            await outcomes.tokens_of("whole")
            outcomes.submit("unimportant", priority=5)
            outcomes.submit("important", priority=-5)
            await outcomes.end_of()
            assert list(outcomes.ended) == ["whole", "important", "unimportant"]
            whole = outcomes.tokens["whole"]
            outcomes.submit("rest", max_tokens=30, temperature=0.9, output_token_ids=whole[:11])
            await outcomes.end_of()
            assert outcomes.tokens["rest"] == whole[11:]

    run(main)


def test_a_full_queue_is_an_error_of_the_request(kind: str) -> None:
    async def main() -> None:
        config = EngineConfig(max_num_seqs=1, max_num_batched_tokens=64, max_queue_size=2)
        async with link(kind, spec(step_s=0.005, config=config)) as (_, outcomes):
            outcomes.submit("runs", max_tokens=50)
            await outcomes.tokens_of("runs")
            refused: list[BaseException | None] = []
            for i in range(4):
                try:
                    outcomes.submit(f"r{i}")
                except QueueFull as error:  # at once in this process, as the request's end from the other
                    del outcomes.tokens[f"r{i}"]
                    refused.append(error)
            await outcomes.end_of()
            refused += [o.error for o in outcomes.ended.values() if o.error is not None]
            assert [type(error) for error in refused] == [QueueFull, QueueFull]

    run(main)


@pytest.mark.slow
def test_the_figures_follow_the_work(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.005)) as (engine, outcomes):
            outcomes.submit("a", [1] * 50, max_tokens=150)
            for i in range(20):
                outcomes.submit(f"r{i}", [1] * 10, max_tokens=150)
            await outcomes.tokens_of("a", 120)
            stats = engine.stats
            assert stats is not None
            assert (stats.num_running, stats.num_waiting) == (16, 5)
            assert stats.num_waiting_tokens == 50
            assert 16 * 100 < stats.num_running_tokens < 16 * 220
            assert 16 * 100 / 32 < stats.num_blocks_used <= 16 * 7
            await outcomes.end_of()
            await eventually(lambda: engine.stats is not None and engine.stats.num_steps >= 300, "the last figures")
            stats = engine.stats
            assert stats is not None and stats.rss_bytes is not None
            assert stats.num_prompt_tokens == 250
            assert stats.num_computed_tokens + stats.num_cached_tokens == 250 + 21 * 149
            assert stats.num_decode_rows + stats.num_prefill_rows >= 21 * 150
            assert stats.num_admissions == 21
            assert stats.execute_s > 300 * 0.005
            assert not stats.is_working and stats.last_step_age_s == 0.0
            assert stats.rss_bytes > 5_000_000 and stats.cpu_s > 0

    run(main)


def test_every_step_is_told_once() -> None:
    seen: list[int] = []

    async def main() -> None:
        async with link("process", on_stats=lambda stats: seen.append(len(stats.steps))) as (_, outcomes):
            outcomes.submit("a", max_tokens=400)
            await outcomes.end_of()

    run(main)
    assert sum(seen) == 400


@pytest.mark.slow
def test_a_profile_of_some_steps(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.005)) as (engine, outcomes):
            outcomes.submit("a", max_tokens=1900)
            found = await engine.call("profile", timeout_s=50, folder=str(tmp_path / "traces"), num_steps=5)
            assert 5 <= found["num_steps"] < 100
            trace = json.loads(Path(found["path"]).read_text())
            assert "traceEvents" in trace
            assert Path(found["path"]).parent == tmp_path / "traces"
            engine.cancel("a")
            await outcomes.end_of()
            # Nothing runs: it ends when its time is over.
            found = await engine.call("profile", timeout_s=50, folder=str(tmp_path), num_steps=5, max_s=0.05)
            assert found["num_steps"] == 0

    run(main)


def test_a_call_that_fails_says_why(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with link(kind) as (engine, _):
            with pytest.raises(InvalidParameter, match="num_steps=0"):
                await engine.call("profile", folder=str(tmp_path), num_steps=0)
            (tmp_path / "file").touch()
            with pytest.raises(Exception, match="file"):
                await engine.call("profile", folder=str(tmp_path / "file"))

    run(main)


def test_a_call_without_an_answer_is_given_up(kind: str) -> None:
    async def main() -> None:
        async with link(kind, spec(step_s=0.5)) as (engine, outcomes):
            outcomes.submit("a", max_tokens=2)
            await outcomes.tokens_of("a")
            with pytest.raises(EngineUnresponsive, match=r"'state' within 0.05 s"):
                await engine.call("state", timeout_s=0.05)
            await outcomes.end_of()

    run(main)
