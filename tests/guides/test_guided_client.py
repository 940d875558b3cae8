"""Requests with guides before the engine: compiled elsewhere, cancelled anywhere, one end each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.engine.guided_client import GuidedClient
from headrace.engine.request import Request
from headrace.errors import EngineStopped, InvalidGuide, InvalidParameter, InvalidRequest, QueueFull, RequestFailed
from headrace.text.guides import Guide, GuideCompiler, GuideSpec
from tests.engine.test_client import Served
from tests.guides.answers import EOS, VOCAB_SIZE

CHOICE = GuideSpec.choice(["yes", "no"])


class GatedCompiler(GuideCompiler):
    """Compiles when the gate is open, and says when it is asked."""

    def __init__(self, inner: GuideCompiler) -> None:
        self.inner = inner
        self.gate = threading.Event()
        self.asked = threading.Semaphore(0)
        self.error: Exception | None = None

    def compile(self, spec: GuideSpec) -> Guide:
        self.asked.release()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return self.inner.compile(spec)


class Guided(Served):
    """A served simulation behind a guided client."""

    def __init__(self, compiler: GuideCompiler | None, **settings: Any) -> None:
        super().__init__(vocab_size=VOCAB_SIZE, **settings)
        self.guided = GuidedClient(self.client, compiler)

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        self.guided.close()
        self.guided.close()

    def send(self, spec: GuideSpec | None, count: int = 1, **options: Any) -> list[Request]:
        requests = [self.make([5, 6, 7 + i], eos=frozenset({EOS}), guide=spec, **options) for i in range(count)]
        self.guided.submit(requests, self.outcomes.take)
        return requests


@pytest.fixture
def gated(compiler) -> Iterator[GatedCompiler]:
    gated = GatedCompiler(compiler)
    yield gated
    gated.gate.set()


def test_guided_and_other_requests_run_together(compiler, tokenizer):
    with Guided(compiler) as engine:
        guided = [request for _ in range(10) for request in engine.send(CHOICE, count=2)]
        plain = engine.send(None, count=3, max_tokens=5)
        engine.outcomes.wait_for(23)
        for request in guided:
            assert tokenizer.decode(engine.outcomes.tokens[request.request_id][:-1]) in ("yes", "no")
        assert len({id(request.guide) for request in guided}) == 20
        assert all(request.guide is None for request in plain)


def test_the_engine_does_not_wait_for_a_guide(gated):
    with Guided(gated) as engine:
        (waiting,) = engine.send(CHOICE)
        gated.asked.acquire()
        engine.send(None, count=4, max_tokens=20)
        engine.outcomes.wait_for(4)
        assert waiting.request_id not in engine.outcomes.ended
        gated.gate.set()
        engine.outcomes.wait_for(5)
        assert engine.outcomes.ended[waiting.request_id].finish_reason == "stop"


def test_a_guide_that_does_not_compile_ends_its_request_with_the_words(compiler):
    with Guided(compiler) as engine:
        bad = engine.send(GuideSpec.regex("(a"), count=2)
        engine.send(CHOICE)
        engine.outcomes.wait_for(3)
        for request in bad:
            output = engine.outcomes.ended[request.request_id]
            assert output.finish_reason == "error"
            assert isinstance(output.error, InvalidGuide)
            assert "unclosed group" in str(output.error)


def test_a_compiler_that_raises_anything_fails_the_request_alone(gated):
    gated.error = OSError("no such file")
    gated.gate.set()
    with Guided(gated) as engine:
        (request,) = engine.send(CHOICE)
        engine.outcomes.wait_for(1)
        error = engine.outcomes.ended[request.request_id].error
        assert isinstance(error, RequestFailed)
        assert "no such file" in str(error)
        gated.error = None
        engine.send(CHOICE)
        engine.outcomes.wait_for(2)


@pytest.mark.parametrize("compiling", [True, False])
def test_a_request_can_be_cancelled_while_its_guide_is_compiled_or_waits_for_that(gated, compiling):
    with Guided(gated) as engine:
        sent = [engine.send(CHOICE)[0] for _ in range(1 if compiling else 5)]
        gated.asked.acquire()
        engine.guided.cancel(sent[-1].request_id)
        engine.outcomes.wait_for(1)
        assert engine.outcomes.reasons == {sent[-1].request_id: "cancelled"}
        gated.gate.set()
        engine.guided.cancel(sent[-1].request_id)
        engine.outcomes.wait_for(len(sent))
        assert engine.client.call(lambda core: core.scheduler.has_requests) is False


def test_an_engine_that_stops_ends_what_waits_for_its_guide(gated):
    with Guided(gated) as engine:
        (request,) = engine.send(CHOICE)
        gated.asked.acquire()
        engine.client.stop()
        engine.outcomes.wait_for(1)
        assert engine.outcomes.reasons == {request.request_id: "cancelled"}
        gated.gate.set()
        with pytest.raises(EngineStopped):
            engine.send(CHOICE)


def test_requests_that_wait_for_their_guide_count_as_waiting(gated):
    with Guided(gated, max_queue_size=3) as engine:
        engine.send(CHOICE, count=3)
        with pytest.raises(QueueFull, match="3 requests wait"):
            engine.send(CHOICE)
        with pytest.raises(QueueFull):
            engine.send(None)
        gated.gate.set()
        engine.outcomes.wait_for(3)


def test_an_id_that_waits_for_its_guide_is_taken(gated):
    with Guided(gated) as engine:
        (request,) = engine.send(CHOICE)
        with pytest.raises(InvalidRequest, match="taken"):
            engine.guided.submit([request], engine.outcomes.take)
        gated.gate.set()
        engine.outcomes.wait_for(1)


def test_guides_without_a_compiler_are_refused():
    with Guided(None) as engine:
        with pytest.raises(InvalidParameter, match="need a tokenizer"):
            engine.send(CHOICE)
        engine.send(None, max_tokens=2)
        engine.outcomes.wait_for(1)
        with pytest.raises(InvalidRequest, match="compiled guide"):
            engine.client.submit([engine.make([5], guide=CHOICE)], engine.outcomes.take)


def test_many_threads_submit_and_cancel_at_once(compiler):
    with Guided(compiler, max_seqs=4) as engine:
        ids: list[str] = []
        lock = threading.Lock()

        def work(number: int) -> None:
            for i in range(20):
                with lock:
                    request = engine.make(
                        [5, number, i], request_id=f"q{number}-{i}", eos=frozenset({EOS}), guide=CHOICE
                    )
                    ids.append(request.request_id)
                engine.guided.submit([request], engine.outcomes.take)
                if i % 3 == 0:
                    time.sleep(0)
                    engine.guided.cancel(request.request_id)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.outcomes.wait_for(80)
        assert set(engine.outcomes.reasons) == set(ids)
        assert set(engine.outcomes.reasons.values()) <= {"stop", "cancelled"}
        engine.client.call(lambda core: core.raise_if_broken())
