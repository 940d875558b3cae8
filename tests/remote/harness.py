"""Engine processes of the simulated kind on a loop, and what came of each request."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.config import EngineConfig
from headrace.engine.outputs import EngineOutput
from headrace.engine.remote import EngineLink, EngineSpec, RestartPolicy, SimulatedSpec, StallLimits
from headrace.engine.remote.process import EngineProcess
from headrace.engine.sampling_params import SamplingParams

FAULTY_COMMAND = (sys.executable, str(Path(__file__).with_name("faulty_child.py")))
QUICK = RestartPolicy(first_delay_s=0.01, most_delay_s=0.05)


def run(main: Callable[[], Coroutine[Any, Any, None]], timeout_s: float = 60.0) -> None:
    """Run a test's coroutine on a fresh loop, which must have no exception that nobody saw."""
    unseen: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
        await asyncio.wait_for(main(), timeout_s)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    asyncio.run(watched())
    assert not unseen


def spec(model: object = "simulated", *, step_s: float = 0.0, config: EngineConfig | None = None) -> EngineSpec:
    """A simulated engine with a small vocabulary."""
    simulated = SimulatedSpec(step_s=step_s, vocab_size=5000, max_model_len=2000, num_blocks=400)
    return EngineSpec(
        model=str(model),
        config=config or EngineConfig(max_num_seqs=16, max_num_batched_tokens=256, check_integrity=True),
        simulated=simulated,
    )


class Outcomes:
    """The sink of the tests: notes everything, and insists on one end per request."""

    def __init__(self, link: EngineLink) -> None:
        self.link = link
        self.tokens: dict[str, list[int]] = {}
        self.ended: dict[str, EngineOutput] = {}
        self.problems: list[str] = []
        self._changed = asyncio.Condition()
        self._event = asyncio.Event()

    def sink(self, output: EngineOutput) -> None:
        name = output.request_id
        if name in self.ended:
            self.problems.append(f"{name} got {output} after its end")
        self.tokens[name].extend(output.new_token_ids)
        if output.finished:
            self.ended[name] = output
        self._event.set()

    def submit(self, name: str, prompt: Sequence[int] = (1, 2, 3), max_tokens: int = 8, **options: Any) -> str:
        """Submit a request that takes no notice of end-of-sequence ids; options are Intake's and SamplingParams'."""
        of_intake = {
            key: options.pop(key) for key in ("queue_timeout_s", "priority", "output_token_ids") if key in options
        }
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, **{"seed": 7, **options})
        requests = self.link.intake.requests(list(prompt), params, name, **of_intake)
        for request in requests:
            self.tokens[request.request_id] = []
        self.link.submit(requests, self.sink)
        return name

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for outputs until the condition holds."""
        while not condition():
            self._event.clear()
            await self._event.wait()

    async def end_of(self, *names: str) -> None:
        """Wait until these have ended (all that were submitted, if none is named)."""
        wanted = names or tuple(self.tokens)
        await self.until(lambda: all(name in self.ended for name in wanted))
        assert not self.problems

    async def tokens_of(self, name: str, count: int = 1) -> None:
        """Wait until a request has so many tokens."""
        await self.until(lambda: len(self.tokens[name]) >= count or name in self.ended)


async def eventually(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for what no output announces."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 30 s: {what}")


@asynccontextmanager
async def engine(
    given: EngineSpec | None = None,
    *,
    restart: RestartPolicy = QUICK,
    stall: StallLimits = StallLimits(),  # noqa: B008 - frozen
    **options: Any,
) -> AsyncIterator[tuple[EngineProcess, Outcomes]]:
    """A started EngineProcess of the faulty kind, stopped at the end."""
    process = EngineProcess(given or spec(), restart=restart, stall=stall, command=FAULTY_COMMAND, **options)
    await process.start()
    outcomes = Outcomes(process)
    try:
        yield process, outcomes
    finally:
        await process.stop(0.0)
        assert not outcomes.problems


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def signal_process(process: EngineProcess, number: int) -> None:
    """Send a signal to the engine's process."""
    assert process.info is not None
    os.kill(process.info.pid, number)


async def undisturbed(*submits: Callable[[Outcomes], Any]) -> dict[str, list[int]]:
    """The tokens of requests on an engine where nothing happens."""
    async with engine() as (_, outcomes):
        for submit in submits:
            submit(outcomes)
        await outcomes.end_of()
        return outcomes.tokens
