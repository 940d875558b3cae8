"""Whatever happens to whom in whatever order: one end each, the right tokens up to there, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.engine.remote import RestartPolicy, StallLimits
from headrace.engine.remote.process import EngineProcess
from headrace.errors import EngineDead, EngineStopped, QueueTimeout, RequestCancelled, StepFailed
from tests.remote import faulty_child as fault
from tests.remote.harness import Outcomes, engine, is_gone, run, signal_process, spec, undisturbed

ENDS = (EngineDead, EngineStopped, QueueTimeout, RequestCancelled, StepFailed)


@dataclass
class Play:
    """What came of a play, and which requests' prompts held a fault."""

    outcomes: Outcomes
    guilty: set[str]


def _submit(outcomes: Outcomes, i: int, prompt: list[int], limit: float | None = None) -> str:
    return outcomes.submit(f"r{i}", prompt, max_tokens=1 + i % 40, seed=i, temperature=0.5, queue_timeout_s=limit)


async def _play(rng: random.Random, marker: Path, count: int) -> Play:
    policy = RestartPolicy(first_delay_s=0.01, most_delay_s=0.02, max_failures=1000)
    limits = StallLimits(silence_s=0.7, hang_s=0.3)
    async with engine(spec(marker, step_s=0.001), restart=policy, stall=limits) as (process, outcomes):
        play = Play(outcomes, set())
        for i in range(count):
            prompt = [i, 2, 3]
            if rng.random() < 0.1:
                what = rng.choice([fault.RAISE, fault.KILL, fault.CRASH, fault.EXIT, fault.KILL_THREAD])
                prompt = [what, rng.randrange(6)]
                play.guilty.add(f"r{i}")
            name = _submit(outcomes, i, prompt, rng.choice([None, None, 0.05, 2.0]))
            if rng.random() < 0.2:
                asyncio.get_running_loop().call_later(rng.random() * 0.05, process.cancel, name)
            if rng.random() < 0.1:
                await _disturb(rng, process)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.03)
        if rng.random() < 0.5:
            await outcomes.end_of()
        else:
            await process.stop(rng.random() * 0.3)
        assert outcomes.ended.keys() == outcomes.tokens.keys()
        assert process.num_live == 0
        if process.state == "ready":
            assert (await process.call("integrity", 30.0))["problems"] == []
        return play


async def _disturb(rng: random.Random, process: EngineProcess) -> None:
    if process.state != "ready":
        return
    pid = process.info.pid
    with suppress(ProcessLookupError):  # a fault of a request may have ended it
        signal_process(process, rng.choice([signal.SIGKILL, signal.SIGSTOP]))
    await asyncio.sleep(rng.random() * 0.2)
    if rng.random() < 0.7 and process.info.pid == pid and not is_gone(pid):
        signal_process(process, signal.SIGCONT)


def _check(seed: int, tmp_path: Path, count: int) -> None:
    async def main() -> None:
        play = await _play(random.Random(seed), tmp_path / "marker", count)
        expected = await undisturbed(*(lambda o, i=i: _submit(o, i, [i, 2, 3]) for i in range(count)))
        for name, output in play.outcomes.ended.items():
            assert output.error is None or isinstance(output.error, ENDS)
            if name not in play.guilty:
                found = play.outcomes.tokens[name]
                assert found == expected[name][: len(found)]
                assert output.error is not None or found == expected[name]

    run(main, timeout_s=120)


@pytest.mark.parametrize("seed", range(2))
def test_forty_requests(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path, 40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_two_hundred_requests(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path, 200)
