"""Engines in processes of their own: what they answer, in which order, and what happens when one goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.bench.comparison import Contender, compare
from headrace.bench.engines.process import EngineFailed, EngineProcess
from headrace.bench.workloads import Request
from tests.bench.fakes import FakeSpec, conditions, contender

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def state(pid: int) -> str:
    """The letter of a process in ps; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for_state(pid: int, wanted: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while state(pid) not in wanted if wanted else state(pid) not in ("", "Z"):
        assert time.monotonic() < deadline, f"process {pid} is {state(pid)!r}, not {wanted!r}"
        time.sleep(0.02)


def test_all_tokens_come_back_in_order() -> None:
    (result,) = compare([contender("a")], conditions(repeats=1))
    (run,) = result.runs[4]
    assert run.token_ids[0] == tuple(range(12, 18))
    assert [len(tokens) for tokens in run.token_ids] == [6, 7, 8, 9]
    assert len(run.ttft_s) == len(run.e2e_s) == 4
    assert result.version == "1.0"
    assert result.failure is None


def test_repeats_and_levels_take_turns() -> None:
    said: list[str] = []
    compare([contender("a"), contender("b")], conditions(levels=(1, 2), repeats=2), said.append)
    turns = [(line[0], line.rpartition(", ")[2]) for line in said if "tok/s" in line]
    assert turns == [(name, f"{level} at a time") for level in (1, 2, 1, 2) for name in "ab"]


@pytest.mark.parametrize("level", [1, 3])
def test_closed_loop_never_exceeds_its_concurrency(level: int) -> None:
    (result,) = compare([contender("a")], conditions(levels=(level,), repeats=1))
    assert result.runs[level][0].steps["most_running"][0] == level


def test_threads_are_set_before_the_engine_is_imported() -> None:
    (result,) = compare([contender("a")], conditions(repeats=1))
    assert result.runs[4][0].steps["threads"][0] == 1


def test_a_model_is_converted_in_a_process_of_its_own_that_ends(tmp_path: Path) -> None:
    converted = tmp_path / "converted"
    entrant = Contender(FakeSpec("a", prepares=True), Path("original"), options={"converted": str(converted)})
    (result,) = compare([entrant], conditions(repeats=1))
    pid, threads, model = converted.read_text().split()
    assert result.failure is None
    assert (threads, model) == ("1", "original")
    assert int(pid) != result.runs[4][0].steps["pid"][0]
    assert state(int(pid)) == ""


def test_a_conversion_that_fails_is_a_failure_of_that_engine() -> None:
    entrant = Contender(FakeSpec("a", prepares=True), Path("original"), options={"fails": "prepare"})
    (result,) = compare([entrant], conditions())
    assert result.failure == "ValueError: no such format"


def test_variants_of_an_engine_are_apart() -> None:
    spec = FakeSpec("a")
    entrants = [Contender(spec, Path("m"), options={"step": step}, variant=name) for step, name in ((1, ""), (2, "x"))]
    plain, other = compare(entrants, conditions(repeats=1))
    assert (plain.name, other.name) == ("a", "a:x")
    assert plain.runs[4][0].token_ids[0] == tuple(range(12, 18))
    assert other.runs[4][0].token_ids[0] == tuple(range(13, 25, 2))


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("load", "ValueError: no such model"),
        ("raise", "ValueError: a row of NaN"),
        ("crash", "exited with status 3: Fatal: the last line"),
        ("short", "RuntimeError: request 0 asked for 6 tokens and got 5"),
    ],
)
def test_a_failing_engine_says_why_and_the_others_go_on(fails: str, message: str) -> None:
    bad, good = compare([contender("bad", fails=fails), contender("good")], conditions())
    assert bad.failure == message
    assert bad.runs == {}
    assert good.failure is None
    assert len(good.runs[4]) == 2


@pytest.mark.slow
def test_an_engine_that_hangs_is_killed_in_time() -> None:
    begin = time.monotonic()
    bad, good = compare([contender("bad", fails="hang"), contender("good")], conditions(timeout_s=5.0))
    assert time.monotonic() - begin < 60
    assert bad.failure is not None
    assert bad.failure.startswith("no answer in 5 s: ")
    assert len(good.runs[4]) == 2


def test_an_interpreter_that_is_not_there_is_a_failure_of_that_engine(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="cannot be started: No such file"):
        EngineProcess(FakeSpec("a"), tmp_path / "python", tmp_path / "log")


@linux
def test_an_engine_is_stopped_while_it_is_not_measured(tmp_path: Path) -> None:
    process = EngineProcess(FakeSpec("a"), None, tmp_path / "log")
    try:
        process.load(conditions().job(contender("a")), 60)
        wait_for_state(process.group_id, "T")
        process.run([Request((1,), 2)], 1, 60)
        wait_for_state(process.group_id, "T")
    finally:
        process.close()
    assert state(process.group_id) == ""


PARENT = """
import sys, time
from pathlib import Path
from headrace.bench.engines.process import EngineProcess
from tests.bench.fakes import FakeSpec, conditions, contender
process = EngineProcess(FakeSpec("a"), None, Path(sys.argv[1]))
process.load(conditions().job(contender("a")), 60)
print(process.group_id, flush=True)
time.sleep(60)
"""


@linux
def test_a_killed_benchmark_leaves_no_stopped_engine_behind(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        engine = int(parent.stdout.readline())
        wait_for_state(engine, "T")
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    wait_for_state(engine, "")


@linux
def test_processor_time_is_the_engines_own() -> None:
    (result,) = compare([contender("a", seconds=0.05)], conditions(repeats=1))
    (run,) = result.runs[4]
    assert run.seconds >= 0.2
    assert run.cpu_s is not None
    assert run.cpu_s < run.seconds
