"""An engine process that is killed, stopped, hung or broken; a parent that dies."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.config import EngineConfig
from headrace.engine.remote import RestartPolicy, StallLimits
from headrace.engine.remote.process import EngineProcess
from headrace.errors import EngineDead, EngineStopped, ModelNotSupported, QueueTimeout, RequestCancelled, StepFailed
from tests.remote import faulty_child as fault
from tests.remote.harness import FAULTY_COMMAND, QUICK, Outcomes, engine, eventually, is_gone, run, signal_process, spec

PATIENT = RestartPolicy(first_delay_s=30.0)


# ---------------------------------------------------------------- starting


def test_what_keeps_it_from_starting_arrives_whole() -> None:
    async def main() -> None:
        process = EngineProcess(spec("not-supported"), command=FAULTY_COMMAND)
        with pytest.raises(ModelNotSupported, match="a model of the tests is not supported") as caught:
            await process.start()
        assert str(caught.value.__cause__) == "KeyError: 'its part'"
        assert "build_faulty" in (caught.value.__cause__.traceback or "")
        assert (process.state, process.trouble) == ("failed", "a model of the tests is not supported")
        await process.stop(None)

    run(main)


def test_an_error_that_is_not_ours_arrives_with_its_class_and_words() -> None:
    async def main() -> None:
        process = EngineProcess(spec("raises"), command=FAULTY_COMMAND)
        with pytest.raises(EngineDead, match="could not be started: ZeroDivisionError: on cue"):
            await process.start()
        await process.stop(None)

    run(main)


def test_a_process_killed_while_it_loads() -> None:
    async def main() -> None:
        process = EngineProcess(spec("killed"), command=FAULTY_COMMAND)
        with pytest.raises(EngineDead, match="killed by SIGKILL"):
            await process.start()
        await process.stop(None)

    run(main)


def test_a_command_that_is_no_engine() -> None:
    async def main() -> None:
        process = EngineProcess(spec(), command=(sys.executable, "-c", "print('I am not one'); raise SystemExit(4)"))
        with pytest.raises(EngineDead, match="ended with status 4") as caught:
            await process.start()
        assert "I am not one" in str(caught.value.__cause__)
        with pytest.raises(OSError, match="no-such"):
            await EngineProcess(spec(), command=("/no-such-program",)).start()

    run(main)


def test_a_start_that_is_cancelled_ends_the_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        process = EngineProcess(spec("slow"), command=FAULTY_COMMAND)
        start = asyncio.create_task(process.start())
        await eventually(lambda: "loading for ever" in caplog.text, "the child's print in our log")
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert process.state == "failed"

    run(main)


def test_a_stop_while_it_loads_ends_the_process_and_the_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        process = EngineProcess(spec("slow"), command=FAULTY_COMMAND)
        start = asyncio.create_task(process.start())
        await eventually(lambda: "loading for ever" in caplog.text, "the child's print in our log")
        await process.stop(0.0)
        with pytest.raises(EngineStopped, match="while it was being started"):
            await start
        assert process.state == "stopped"

    run(main)


# ---------------------------------------------------------------- the process ends


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (fault.KILL, "killed by SIGKILL"),
        (fault.CRASH, "killed by SIGSEGV"),
        (fault.EXIT, "ended with status 3"),
        (fault.KILL_THREAD, "ThreadKiller: on cue"),
    ],
)
def test_requests_with_tokens_end_and_the_others_run_again(tmp_path: Path, what: int, words: str) -> None:
    """The guilty one dies after 5 tokens; one had not had its turn, one comes while there is no process."""

    async def main() -> None:
        states: list[str] = []
        config = EngineConfig(max_num_seqs=2, max_num_batched_tokens=64, check_integrity=True)
        async with engine(spec(tmp_path / "marker", step_s=0.02, config=config), on_change=states.append) as (
            process,
            outcomes,
        ):
            first_pid = process.info.pid
            outcomes.submit("guilty", [what + fault.ONCE, 5], max_tokens=20)
            outcomes.submit("beside", max_tokens=500)
            outcomes.submit("waiting", [7, 7], max_tokens=10, seed=3, temperature=0.7)
            await eventually(lambda: process.state == "restarting", "the end is noticed")
            outcomes.submit("between", [8, 8], max_tokens=10)
            await outcomes.end_of()
            for name in ("guilty", "beside"):
                assert isinstance(outcomes.ended[name].error, EngineDead)
                assert words in str(outcomes.ended[name].error)
            assert len(outcomes.tokens["guilty"]) <= 5
            assert states == ["starting", "ready", "restarting", "ready"]
            assert process.info.pid != first_pid and is_gone(first_pid)
            again = {name: outcomes.tokens[name] for name in ("waiting", "between")}
        async with engine() as (_, alone):
            alone.submit("waiting", [7, 7], max_tokens=10, seed=3, temperature=0.7)
            alone.submit("between", [8, 8], max_tokens=10)
            await alone.end_of()
            assert alone.tokens == again

    run(main)


@pytest.mark.parametrize("what", [fault.KILL, fault.KILL_THREAD])
def test_who_is_told_of_the_end_finds_the_state_changed(tmp_path: Path, what: int) -> None:
    async def main() -> None:
        async with engine(spec(tmp_path / "marker", step_s=0.02)) as (process, outcomes):
            outcomes.submit("guilty", [what + fault.ONCE, 3], max_tokens=20)
            await outcomes.end_of()
            assert isinstance(outcomes.ended["guilty"].error, EngineDead)
            assert process.state == "restarting"

    run(main)


def test_a_crash_leaves_its_stack_in_the_error() -> None:
    async def main() -> None:
        async with engine(restart=RestartPolicy(max_failures=0)) as (_, outcomes):
            outcomes.submit("guilty", [fault.CRASH, 1])
            await outcomes.end_of()
            cause = str(outcomes.ended["guilty"].error.__cause__)
            assert "Fatal Python error: Segmentation fault" in cause
            assert "_happen" in cause

    run(main)


def test_a_request_that_kills_every_process_is_given_up_after_its_third() -> None:
    async def main() -> None:
        async with engine() as (process, outcomes):
            outcomes.submit("poison", [fault.KILL, 0])
            await outcomes.end_of()
            assert isinstance(outcomes.ended["poison"].error, EngineDead)
            assert "killed by SIGKILL" in str(outcomes.ended["poison"].error)
            outcomes.submit("next")
            await outcomes.end_of()
            assert outcomes.ended["next"].finish_reason == "length"
            assert process.state == "ready"

    run(main)


def test_too_many_failures_in_a_row_and_it_is_given_up() -> None:
    async def main() -> None:
        policy = RestartPolicy(first_delay_s=0.01, max_failures=2, max_resubmissions=9)
        async with engine(restart=policy) as (process, outcomes):
            outcomes.submit("poison", [fault.KILL, 0])
            await outcomes.end_of()
            assert isinstance(outcomes.ended["poison"].error, EngineDead)
            await eventually(lambda: process.state == "failed", "it is given up")
            assert "3 failures in a row" in process.trouble
            with pytest.raises(EngineDead, match="killed by SIGKILL"):
                outcomes.submit("late")
            del outcomes.tokens["late"]

    run(main)


def test_a_next_process_that_cannot_start_counts_as_a_failure(tmp_path: Path) -> None:
    async def main() -> None:
        policy = RestartPolicy(first_delay_s=0.01, max_failures=2)
        async with engine(spec(tmp_path / "only-once"), restart=policy) as (process, outcomes):
            outcomes.submit("guilty", [fault.KILL, 2])
            outcomes.submit("waiting", [1], max_tokens=1900)
            await outcomes.end_of()
            await eventually(lambda: process.state == "failed", "it is given up")
            assert "cannot be loaded a second time (3 failures in a row" in process.trouble

    run(main)


def test_a_request_cancelled_while_there_is_no_process_ends_at_once() -> None:
    async def main() -> None:
        async with engine(restart=PATIENT) as (process, outcomes):
            signal_process(process, signal.SIGKILL)
            await eventually(lambda: process.state == "restarting", "the end is noticed")
            outcomes.submit("a")
            process.cancel("a")
            assert isinstance(outcomes.ended["a"].error, RequestCancelled)
            assert process.num_live == 0

    run(main)


def test_a_request_cancelled_as_the_process_dies_is_not_run_again() -> None:
    async def main() -> None:
        async with engine(spec(step_s=0.002)) as (process, outcomes):
            signal_process(process, signal.SIGSTOP)
            outcomes.submit("a")
            process.cancel("a")
            signal_process(process, signal.SIGKILL)
            await outcomes.end_of()
            assert isinstance(outcomes.ended["a"].error, RequestCancelled)

    run(main)


def test_a_question_to_a_process_that_dies_is_answered_with_why() -> None:
    async def main() -> None:
        async with engine(spec(step_s=1.0), restart=PATIENT) as (process, outcomes):
            outcomes.submit("a")
            question = asyncio.create_task(process.call("state"))
            await asyncio.sleep(0)
            signal_process(process, signal.SIGKILL)
            with pytest.raises(EngineDead, match="SIGKILL"):
                await question
            with pytest.raises(EngineStopped, match="restarting"):
                await process.call("state")

    run(main)


def test_one_row_that_raises_is_no_matter_for_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine() as (process, outcomes):
            outcomes.submit("guilty", [fault.RAISE, 3])
            outcomes.submit("beside", max_tokens=50)
            await outcomes.end_of()
            error = outcomes.ended["guilty"].error
            assert isinstance(error, StepFailed)
            assert "SystemError: on cue" in str(error)
            assert str(error.__cause__) == "SystemError: on cue"
            assert len(outcomes.tokens["beside"]) == 50
            assert process.state == "ready"

    run(main)


# ---------------------------------------------------------------- the process lives, and does nothing


@pytest.mark.slow
def test_a_stopped_process_is_stalled_within_seconds_and_comes_back() -> None:
    async def main() -> None:
        async with engine(spec(step_s=0.002)) as (process, outcomes):
            outcomes.submit("a", max_tokens=200)
            await outcomes.tokens_of("a", 5)
            signal_process(process, signal.SIGSTOP)
            begin = time.monotonic()
            await eventually(lambda: process.state == "stalled", "it is stalled")
            assert 1.0 < time.monotonic() - begin < 4.0
            assert "said nothing for" in process.trouble
            outcomes.submit("b")  # accepted: it may come back
            signal_process(process, signal.SIGCONT)
            await outcomes.end_of()
            await eventually(lambda: process.state == "ready", "it is back")
            assert process.trouble is None
            assert len(outcomes.tokens["a"]) == 200

    run(main)


def test_requests_wait_no_longer_than_their_limit_for_a_stopped_process() -> None:
    async def main() -> None:
        async with engine(stall=StallLimits(silence_s=0.8)) as (process, outcomes):
            signal_process(process, signal.SIGSTOP)
            outcomes.submit("a", queue_timeout_s=1.0)
            outcomes.submit("b")
            await outcomes.end_of("a")
            assert isinstance(outcomes.ended["a"].error, QueueTimeout)
            signal_process(process, signal.SIGCONT)
            await outcomes.end_of()
            assert outcomes.ended["b"].finish_reason == "length"
            assert not outcomes.tokens["a"]

    run(main)


@pytest.mark.slow
def test_a_step_that_hangs_is_seen_although_figures_come(tmp_path: Path) -> None:
    """The figures go on; what they say is that nothing goes on. After a while the process is replaced."""

    async def main() -> None:
        limits = StallLimits(step_s=0.6, hang_s=0.6)
        async with engine(spec(tmp_path / "marker"), stall=limits) as (process, outcomes):
            outcomes.submit("guilty", [fault.HANG + fault.ONCE, 2])
            await eventually(lambda: process.state == "stalled", "it is stalled")
            assert "a step has been under way" in process.trouble
            assert process.stats.is_working and process.stats.last_step_age_s > 0.6
            outcomes.submit("waiting")
            await outcomes.end_of()
            assert isinstance(outcomes.ended["guilty"].error, EngineDead)
            assert outcomes.ended["waiting"].finish_reason == "length"

    run(main)


def test_a_stopped_process_does_not_hold_up_the_stop() -> None:
    async def main() -> None:
        async with engine(stall=StallLimits(silence_s=0.8)) as (process, outcomes):
            signal_process(process, signal.SIGSTOP)
            outcomes.submit("a")
            await eventually(lambda: process.state == "stalled", "it is stalled")
            begin = time.monotonic()
            await process.stop(0.1)
            assert time.monotonic() - begin < 3
            assert isinstance(outcomes.ended["a"].error, EngineStopped)

    run(main)


@pytest.mark.slow
def test_an_idle_engine_is_not_stalled() -> None:
    async def main() -> None:
        states: list[str] = []
        limits = StallLimits(silence_s=1.5, step_s=0.3)
        async with engine(spec(step_s=0.05), stall=limits, on_change=states.append) as (_, outcomes):
            await asyncio.sleep(1.2)
            outcomes.submit("a", max_tokens=20)
            await outcomes.end_of()
            await asyncio.sleep(0.6)
            assert states == ["starting", "ready"]

    run(main)


def test_stopping_while_a_restart_is_awaited_ends_what_waits() -> None:
    async def main() -> None:
        async with engine(restart=PATIENT) as (process, outcomes):
            signal_process(process, signal.SIGKILL)
            await eventually(lambda: process.state == "restarting", "the end is noticed")
            outcomes.submit("a")
            await process.stop(0.05)
            assert isinstance(outcomes.ended["a"].error, EngineStopped)

    run(main)


def test_a_process_that_dies_while_the_rest_is_finished_is_not_replaced() -> None:
    async def main() -> None:
        async with engine(spec(step_s=0.002)) as (process, outcomes):
            outcomes.submit("a", max_tokens=1900)
            await outcomes.tokens_of("a")
            stop = asyncio.create_task(process.stop(None))
            await asyncio.sleep(0)
            signal_process(process, signal.SIGKILL)
            await stop
            assert isinstance(outcomes.ended["a"].error, EngineDead)
            assert process.state == "stopped"

    run(main)


def test_interrupt_and_terminate_are_the_parents_to_handle() -> None:
    async def main() -> None:
        async with engine(spec(step_s=0.002)) as (process, outcomes):
            outcomes.submit("a", max_tokens=100)
            await outcomes.tokens_of("a", 3)
            signal_process(process, signal.SIGINT)
            signal_process(process, signal.SIGTERM)
            await outcomes.end_of()
            assert len(outcomes.tokens["a"]) == 100

    run(main)


# ---------------------------------------------------------------- the parent


PARENT = """
import asyncio, sys
from headrace.engine.remote.process import EngineProcess
from tests.remote.harness import FAULTY_COMMAND, Outcomes, spec

async def main():
    process = EngineProcess(spec(sys.argv[1], step_s=0.01), command=FAULTY_COMMAND)
    task = asyncio.create_task(process.start())
    if sys.argv[1] == "slow":
        await asyncio.sleep(0.5)
    else:
        await task
        Outcomes(process).submit("a", max_tokens=1900)
    children = open(f"/proc/self/task/{__import__('os').getpid()}/children").read()
    print(children.strip(), flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("model", ["simulated", "slow"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_dies_with_its_parent(model: str, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, model], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_gone(child)
        parent.send_signal(number)
        parent.wait(10)
    deadline = time.monotonic() + 2
    while not is_gone(child):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.01)


def test_a_process_whose_parent_is_not_there_ends_at_once() -> None:
    """As when the parent died before the child could ask for the signal."""
    left, right = os.pipe()
    try:
        command = [sys.executable, "-m", "headrace.engine.remote.child", str(right), "1"]
        status = subprocess.run(command, pass_fds=(right,), timeout=30, check=False, capture_output=True)
    finally:
        os.close(left)
        os.close(right)
    assert (status.returncode, status.stderr) == (1, b"")


def test_the_childs_log_is_in_ours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with engine() as (process, outcomes):
            outcomes.submit("guilty", [fault.RAISE, 1])
            await outcomes.end_of()
            expected = f"engine {process.info.pid}: request guilty failed alone: SystemError: on cue"
            await eventually(lambda: any(r.getMessage() == expected for r in caplog.records), "the record")
            (record,) = (r for r in caplog.records if r.getMessage() == expected)
            assert (record.name, record.levelno) == ("headrace.engine.resilience", logging.WARNING)

    run(main)


@pytest.mark.slow
def test_a_parent_that_does_not_read_does_not_grow_the_child() -> None:
    """It reads nothing for a while; then everything is there, and the process is no larger than the outputs are."""

    async def main() -> None:
        async with engine(spec(step_s=0.0005)) as (process, outcomes):
            for i in range(16):
                outcomes.submit(f"r{i}", [i], max_tokens=1900)
            await outcomes.tokens_of("r0", 10)
            pid = process.info.pid
            before = _rss_bytes(pid)
            time.sleep(4.0)  # the loop stands still
            assert _rss_bytes(pid) - before < 60 << 20
            await outcomes.end_of()
            assert {len(tokens) for tokens in outcomes.tokens.values()} == {1900}

    run(main)


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_engines_side_by_side() -> None:
    async def main() -> None:
        async with engine(restart=QUICK) as (one, first), engine() as (_, second):
            assert isinstance(first, Outcomes)
            first.submit("a", max_tokens=1500)
            second.submit("a", max_tokens=50)
            await first.tokens_of("a")
            signal_process(one, signal.SIGKILL)
            await second.end_of()
            await first.end_of()
            assert second.ended["a"].finish_reason == "length"
            assert isinstance(first.ended["a"].error, EngineDead)

    run(main)
