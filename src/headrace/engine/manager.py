"""The interface of transformers' continuous batching, over headrace's engine.

The manager has the same methods as transformers' (`batch` has the function over it). Differences: bad input raises at
once, or ends its own request alone, with a message; each request has its own sampling settings; a result for another
reader is kept, not put back in line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import Any

from headrace.config import EngineConfig
from headrace.engine.assembly import assemble
from headrace.engine.client import EngineClient
from headrace.engine.generation_config import settings_from
from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.outputs import EngineOutput
from headrace.engine.request import Request, RequestStatus
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidParameter, InvalidRequest


@dataclass(slots=True)
class GenerationOutput:
    """The state of one request, with the names of transformers' class.

    Attributes:
        request_id: of the request; with several return sequences it ends in #0, #1, …
        prompt_ids: the prompt. generated_tokens: so far, or all.
        logprobs: of the generated tokens, when the sampling parameters ask for them.
        error: what went wrong, in words; None when nothing did.
        status: DECODING on a streamed partial result, then FINISHED or FAILED.
    """

    request_id: str
    prompt_ids: list[int] = field(default_factory=list)
    generated_tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    error: str | None = None
    status: RequestStatus = RequestStatus.PENDING

    def is_finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status >= RequestStatus.FINISHED


class ContinuousBatchingManager:
    """Continuous batching over a model, with the methods of transformers' manager.

    ::

        with ContinuousBatchingManager(model, generation_config) as manager:
            request_id = manager.add_request(input_ids, max_new_tokens=20)
            print(manager.get_result(request_id).generated_tokens)

    All methods may be called from any thread.

    Args:
        model: a transformers model, a folder, a hub id or "builtin".
        generation_config: a transformers GenerationConfig; by default the model's own.
        config: EngineConfig, or None for its defaults.
    """

    def __init__(self, model: Any, generation_config: Any = None, config: EngineConfig | None = None) -> None:
        """Load and size the engine; `start` starts it."""
        engine = assemble(model, EngineConfig() if config is None else config)
        self.config = engine.config
        self.generation_config = (
            engine.loaded.model.generation_config if generation_config is None else generation_config
        )
        self._client = EngineClient(engine.core, engine.config.max_queue_size)
        length = engine.config.max_model_len
        assert length is not None
        try:
            settings = settings_from(self.generation_config, engine.loaded.eos_token_ids)
        except BaseException:
            self._client.stop()
            raise
        self._params, self._max_total_tokens = settings.params, settings.max_total_tokens
        limits = IntakeLimits(engine.core.runner.vocab_size, length, settings.eos_token_ids)
        self._intake = Intake(limits, engine.core.clock)
        self._changed = Condition()
        self._live: dict[str, GenerationOutput] = {}
        self._streamed: dict[str, deque[GenerationOutput]] = {}
        self._results: dict[str, GenerationOutput] = {}  # ended and not fetched yet, in the order in which they ended

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Start the engine; harmless when it runs, EngineStopped after `stop`."""
        if not self._client.is_running:
            self._client.start()

    def is_running(self) -> bool:
        """Whether requests are accepted."""
        return self._client.is_running

    def stop(self, block: bool = True, timeout: float | None = None) -> None:
        """Stop after the step under way. Live requests end as FAILED, with their tokens so far.

        Args:
            block: wait for the end, `timeout` seconds at most (None: as long as it takes).
        """
        self._client.stop(block, timeout)

    def __enter__(self) -> ContinuousBatchingManager:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and wait."""
        self.stop(block=True)

    # ---------------------------------------------------------------- requests

    def add_request(
        self,
        input_ids: Sequence[int],
        request_id: str | None = None,
        max_new_tokens: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        streaming: bool = False,
        sampling_params: SamplingParams | None = None,
    ) -> str:
        """Queue a request and return its id.

        Args:
            input_ids: token ids of the prompt. request_id: an own id, unique among live requests.
            max_new_tokens: instead of the configured one. eos_token_id: instead of the configured ones; -1 for none.
            streaming: also give a partial result per step, to `request_id_iter`.
            sampling_params: instead of what the generation config says.

        Raises:
            InvalidRequest and its kinds, QueueFull, EngineStopped, EngineDead.
        """
        params = self._params if sampling_params is None else sampling_params
        by_config = sampling_params is None and max_new_tokens is None
        if max_new_tokens is not None:
            params = replace(params, max_tokens=max_new_tokens)
        if params.stop:
            raise InvalidParameter("stop", params.stop, "a manager has no tokenizer; use stop_token_ids, or LLM")
        if params.guide is not None:
            raise InvalidParameter("guide", params.guide.kind, "a manager has no tokenizer, which guides need; use LLM")
        name = self._intake.new_request_id() if request_id is None else request_id
        requests = self._intake.requests(
            input_ids,
            params,
            name,
            eos_token_ids=_eos_ids(eos_token_id),
            max_total_tokens=self._max_total_tokens if by_config else None,
        )
        self._submit(requests, streaming)
        return name

    def add_requests(self, inputs: Sequence[Sequence[int]], **options: Any) -> list[str]:
        """`add_request` for each input, with the same options."""
        return [self.add_request(input_ids, **options) for input_ids in inputs]

    def _submit(self, requests: Sequence[Request], streaming: bool) -> None:
        names = [request.request_id for request in requests]
        with self._changed:
            taken = [name for name in names if name in self._results or name in self._live]
            if taken:
                raise InvalidRequest(f"request id {taken[0]!r} is taken: it is live, or its result was not fetched yet")
            self._live.update(
                (r.request_id, GenerationOutput(r.request_id, list(r.prompt_token_ids))) for r in requests
            )
            if streaming:
                self._streamed.update((name, deque()) for name in names)
        try:
            self._client.submit(requests, self._take)
        except BaseException:
            with self._changed:
                for name in names:
                    self._live.pop(name, None)
                    self._streamed.pop(name, None)
            raise

    def cancel_request(self, request_id: str) -> None:
        """End a request (all its sequences); it is reported as FAILED with its tokens so far. Harmless when ended."""
        with self._changed:
            names = [name for name in self._live if name == request_id or name.startswith(f"{request_id}#")]
        for name in names:
            self._client.cancel(name)

    def _take(self, output: EngineOutput) -> None:
        """One engine output, on the dispatcher's thread."""
        with self._changed:
            name = output.request_id
            state = self._live[name]
            state.generated_tokens.extend(output.new_token_ids)
            state.logprobs.extend(entry.logprob for entry in output.new_logprobs)
            state.status = RequestStatus.DECODING
            if output.finished:
                state.status = RequestStatus.FINISHED if output.error is None else RequestStatus.FAILED
                state.error = None if output.error is None else str(output.error)
                del self._live[name]
                self._results[name] = state
            elif name in self._streamed:
                partial = replace(state, generated_tokens=list(state.generated_tokens), logprobs=list(state.logprobs))
                self._streamed[name].append(partial)
            self._changed.notify_all()

    # ---------------------------------------------------------------- results

    def get_result(self, request_id: str | None = None, timeout: float | None = None) -> GenerationOutput | None:
        """Wait for a request's end, or for any request's; None after `timeout` seconds, or when nothing can come.

        Each result is given once. Results of other requests stay where they are.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready(request_id) or not self._expected(request_id), timeout)
            if not self._ready(request_id):
                return None
            return self._fetch(next(iter(self._results)) if request_id is None else request_id)

    def request_id_iter(self, request_id: str) -> Iterator[GenerationOutput]:
        """Yield a request's results: partial ones when it streams, and the final one."""
        while True:
            with self._changed:
                partial = self._streamed.get(request_id)
                self._changed.wait_for(
                    lambda p=partial: bool(p) or self._ready(request_id) or not self._expected(request_id)  # type: ignore[misc]
                )
                if partial:
                    found = partial.popleft()
                elif self._ready(request_id):
                    found = self._fetch(request_id)
                else:
                    return
            yield found
            if found.is_finished():
                return

    def __iter__(self) -> Iterator[GenerationOutput]:
        """Yield results as requests end, until none is live."""
        while (result := self.get_result()) is not None:
            yield result

    def _ready(self, request_id: str | None) -> bool:
        return bool(self._results) if request_id is None else request_id in self._results

    def _expected(self, request_id: str | None) -> bool:
        return bool(self._live) if request_id is None else request_id in self._live

    def _fetch(self, request_id: str) -> GenerationOutput:
        self._streamed.pop(request_id, None)
        return self._results.pop(request_id)

    def sequence_ids(self, request_id: str, params: SamplingParams | None = None) -> list[str]:
        """Ids under which the results of `add_request(request_id=...)` come: one per return sequence."""
        n = (self._params if params is None else params).n
        return [request_id] if n == 1 else [f"{request_id}#{i}" for i in range(n)]

    # ---------------------------------------------------------------- looking in

    def dump_state(self) -> dict[str, Any]:
        """Scheduler and cache, between two steps, as plain data."""
        state: dict[str, Any] = self._client.call(lambda core: core.dump_state())
        return state

    def check_integrity(self) -> None:
        """Check every invariant of queues, tables, pools and prefix tree; RuntimeError names what is broken."""
        self._client.call(lambda core: core.raise_if_broken())


def _eos_ids(given: int | Sequence[int] | None) -> frozenset[int] | None:
    if given is None:
        return None
    ids = [given] if isinstance(given, int) else list(given)
    return frozenset(i for i in ids if i >= 0)
