"""Ready means: a token was made by this very process, and it still lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from headrace.engine.outputs import EngineOutput
from headrace.errors import EngineStopped, StepFailed
from headrace.server import health
from headrace.server.health import Readiness
from tests.server.service import in_loop


class Scripted:
    """An engine that answers a request when the test says so."""

    def __init__(self) -> None:
        self.state, self.trouble, self.info = "starting", "it is being started", None
        self.intake = SimpleNamespace(requests=lambda prompt, params, name: [SimpleNamespace(request_id=name)])
        self.sinks: list[tuple[str, Callable[[EngineOutput], None]]] = []

    def submit(self, requests: Any, sink: Any) -> None:
        if self.state != "ready":
            raise EngineStopped("not now")
        self.sinks.append((requests[0].request_id, sink))

    def become_ready(self, pid: int) -> None:
        self.state, self.trouble, self.info = "ready", None, SimpleNamespace(pid=pid)

    def answer(self, error: Any = None) -> None:
        name, sink = self.sinks.pop(0)
        sink(EngineOutput(name, (5,), finish_reason="error" if error else "length", error=error))


def made() -> tuple[Scripted, Readiness]:
    engine = Scripted()
    readiness = Readiness(engine)  # type: ignore[arg-type]
    readiness.missing = None
    return engine, readiness


async def asked(engine: Scripted) -> None:
    while not engine.sinks:
        await asyncio.sleep(0.001)


@in_loop
async def test_ready_only_after_a_token() -> None:
    engine, readiness = made()
    assert "starting" in (readiness.reason() or "")
    engine.become_ready(1)
    readiness.engine_changed()
    assert "has not made a token" in (readiness.reason() or "")
    await asked(engine)
    assert readiness.reason() is not None
    engine.answer()
    await readiness.proven()
    assert readiness.reason() is None
    engine.state, engine.trouble = "stalled", "silent for 3 s"
    assert readiness.reason() == "the engine is stalled: silent for 3 s"
    engine.state = "ready"
    readiness.is_draining = True
    assert "drains" in (readiness.reason() or "")


@in_loop
async def test_another_process_has_to_prove_itself_again() -> None:
    engine, readiness = made()
    for pid in (1, 2):
        engine.become_ready(pid)
        readiness.engine_changed()
        assert readiness.reason() is not None
        await asked(engine)
        engine.answer()
        await readiness.proven()
        assert readiness.reason() is None


@in_loop
async def test_the_state_may_come_before_the_process_is_known() -> None:
    engine, readiness = made()
    engine.become_ready(1)
    readiness.engine_changed()
    await asked(engine)
    engine.answer()
    await readiness.proven()
    readiness.engine_changed()  # "ready" again; which process it is comes a moment later
    engine.become_ready(2)
    await asked(engine)
    engine.answer()
    await readiness.proven()
    assert readiness.reason() is None


@in_loop
async def test_a_proof_that_fails_is_tried_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(health, "_RETRY_S", 0.01)
    engine, readiness = made()
    engine.become_ready(1)
    readiness.engine_changed()
    await asked(engine)
    engine.answer(StepFailed("the model raised"))
    await asked(engine)
    assert readiness.reason() == "the engine could not make a token: the model raised"
    engine.answer()
    await readiness.proven()
    assert readiness.reason() is None


@in_loop
async def test_closing_ends_a_proof_under_way() -> None:
    engine, readiness = made()
    engine.become_ready(1)
    readiness.engine_changed()
    await asked(engine)
    await readiness.close()
    assert readiness.reason() is not None
