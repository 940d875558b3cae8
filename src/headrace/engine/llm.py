"""`LLM`: a model, its tokenizer and an engine, for Python."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from headrace.config import EngineConfig
from headrace.engine.assembly import assemble
from headrace.engine.client import EngineClient
from headrace.engine.core import StepTimes
from headrace.engine.garbage import collections_paused
from headrace.engine.generation_config import default_params
from headrace.engine.guided_client import GuidedClient
from headrace.engine.handle import DeltaStream, RequestHandle
from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.progress import Progress
from headrace.engine.results import RequestOutput
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidParameter, InvalidRequest, ModelNotSupported
from headrace.text import Tokenizer
from headrace.text.guides import GuideCompiler, check

_log = logging.getLogger(__name__)

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


class LLM:
    """Generates with any decoder of transformers, many requests at a time.

    ::

        with LLM("builtin") as llm:
            print(llm.generate("Who lives in the mill?")[0].outputs[0].text)

    All methods may be called from any thread.

    Args:
        model: a folder, a hub id, "builtin", or a transformers PreTrainedModel, which is usable again after `close`.
        tokenizer: a transformers tokenizer, a folder or a hub id; by default the model's own. A model object has none:
            without a tokenizer prompts are token ids and outputs have no text.
        revision: of a hub id. trust_remote_code: run code that comes with the checkpoint.
        settings: fields of EngineConfig.

    Attributes:
        config: the settings, with every None worked out.
        default_sampling_params: what the model's generation config says, as transformers' own `generate` would take it.

    Raises:
        ModelNotSupported, ConfigError: with the reason and the numbers.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> None:
        """Load the model and start its engine."""
        config = EngineConfig.from_settings(settings)
        with collections_paused():
            engine = assemble(model, config, revision=revision, trust_remote_code=trust_remote_code)
            self.config = engine.config
            self._client = EngineClient(engine.core, engine.config.max_queue_size)
            try:
                source = engine.loaded.source if tokenizer is None else tokenizer
                self._tokenizer = _tokenizer(source, revision, trust_remote_code, explicit=tokenizer is not None)
            except BaseException:
                self._client.stop()
                raise
        length = engine.config.max_model_len
        assert length is not None
        eos = engine.loaded.eos_token_ids or frozenset(self._tokenizer.eos_token_ids if self._tokenizer else ())
        vocab_size = engine.core.runner.vocab_size
        self._intake = Intake(IntakeLimits(vocab_size, length, eos), engine.core.clock)
        compiler = None if self._tokenizer is None else GuideCompiler(self._tokenizer, vocab_size)
        self._guided = GuidedClient(self._client, compiler)
        self.default_sampling_params = default_params(engine.loaded.model.generation_config)
        self._client.start()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; InvalidRequest when there is none."""
        if self._tokenizer is None:
            raise InvalidRequest("this LLM has no tokenizer: pass tokenizer=..., or prompts as token ids")
        return self._tokenizer

    # ---------------------------------------------------------------- generating

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Complete prompts; returns one output per prompt, in order.

        A prompt that cannot be served (empty, too long, …) gets an output with its `error`; the others are not
        disturbed.

        Args:
            prompts: one or several, each a text or token ids.
            sampling_params: for all, or one per prompt; None is `default_sampling_params`.
            progress: show a bar with tokens per second on standard error.

        Raises:
            EngineStopped, EngineDead: nothing is accepted any more.
        """
        if not isinstance(prompts, Iterable):
            raise InvalidRequest(f"prompts must be texts or lists of token ids, not {type(prompts).__name__}")
        listed = [prompts] if isinstance(prompts, str) or _is_token_ids(prompts) else list(prompts)
        return self._run_all(listed, lambda prompt: prompt, sampling_params, progress)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation, or several: as `generate`, over the model's chat template."""
        many = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        return self._run_all(many, self.chat_prompt, sampling_params, progress)

    def chat_prompt(self, messages: Any) -> list[int]:
        """Token ids of a conversation, up to the opening of the assistant's answer."""
        return self.tokenizer.apply_chat_template(messages)

    def stream(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> DeltaStream:
        """Complete one prompt and yield its pieces as they come; closing or dropping the stream cancels the request.

        Raises:
            What `submit` raises, at the call; the request's error when it fails on the way.
        """
        return DeltaStream(self.submit(prompt, sampling_params, streaming=True))

    def submit(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        request_id: str | None = None,
        cache_salt: str | None = None,
        streaming: bool = False,
    ) -> RequestHandle:
        """Start one request and return at once.

        Args:
            prompt: a text or token ids. request_id: an own id, unique among live requests.
            cache_salt: share cached prefixes only with requests of the same salt.
            streaming: keep the text up to date for `RequestHandle.deltas`.

        Raises:
            InvalidRequest and its kinds, QueueFull, EngineStopped, EngineDead.
        """
        params = self.default_sampling_params if sampling_params is None else sampling_params
        token_ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        name = self._intake.new_request_id() if request_id is None else request_id
        requests = self._intake.requests(token_ids, params, name, cache_salt)
        if params.stop and self._tokenizer is None:
            raise InvalidParameter("stop", params.stop, "stop strings need a tokenizer; use stop_token_ids")
        if params.guide is not None:
            check(params.guide)
        handle = RequestHandle(name, requests, self._client.cancel, self._tokenizer, streaming)
        self._guided.submit(requests, handle.take)
        return handle

    def as_completed(self, handles: Iterable[RequestHandle]) -> Iterator[RequestHandle]:
        """Yield handles in the order in which their requests end."""
        ended: SimpleQueue[RequestHandle] = SimpleQueue()
        count = 0
        for handle in handles:
            handle.on_done(ended.put)
            count += 1
        for _ in range(count):
            yield ended.get()

    def _run_all(
        self,
        inputs: Sequence[Any],
        to_prompt: Callable[[Any], Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        progress: bool,
    ) -> list[RequestOutput]:
        params = _one_each(self.default_sampling_params if sampling_params is None else sampling_params, len(inputs))
        results: list[RequestOutput | None] = [None] * len(inputs)
        places: dict[str, int] = {}
        handles = []
        try:
            for i, (given, settings) in enumerate(zip(inputs, params, strict=True)):
                try:
                    handles.append(self.submit(to_prompt(given), settings))
                    places[handles[-1].request_id] = i
                except InvalidRequest as error:
                    results[i] = RequestOutput(self._intake.new_request_id(), (), (), error=error)
            with Progress(sys.stderr if progress else None, len(inputs)) as line:
                for _ in range(len(inputs) - len(handles)):
                    line.update(0, failed=True)
                for handle in self.as_completed(handles):
                    output = results[places[handle.request_id]] = handle.result()
                    num_tokens = sum(len(completion.token_ids) for completion in output.outputs)
                    line.update(num_tokens, failed=output.error is not None)
        except BaseException:
            for handle in handles:
                handle.cancel()
            raise
        return [output for output in results if output is not None]

    # ---------------------------------------------------------------- the engine

    def dump_state(self) -> dict[str, Any]:
        """Scheduler and cache, between two steps, as plain data."""
        state: dict[str, Any] = self._client.call(lambda core: core.dump_state())
        return state

    def recent_steps(self) -> list[StepTimes]:
        """Where the time of the last 4,096 steps went."""
        steps: list[StepTimes] = self._client.call(lambda core: list(core.recent_steps))
        return steps

    @contextmanager
    def profile(self, path: str | Path) -> Iterator[None]:
        """Record the steps that run inside the block, and write a trace for Perfetto or chrome://tracing to `path`.

        Recording costs time: the trace says where time goes, not how much there is.
        """
        from headrace.engine.runner.profiling import StepProfiler

        profiler = StepProfiler(Path(path))
        self._client.call(lambda core: profiler.start())
        try:
            yield
        finally:
            self._client.call(lambda core: profiler.stop())

    def check_integrity(self) -> None:
        """Check every invariant of queues, tables, pools and prefix tree; RuntimeError names what is broken."""
        self._client.call(lambda core: core.raise_if_broken())

    @property
    def is_running(self) -> bool:
        """Whether requests are accepted."""
        return self._client.is_running

    def close(self) -> None:
        """Stop the engine; live requests end as cancelled, the model is given back. Harmless when repeated."""
        self._client.stop()
        self._guided.close()

    def __enter__(self) -> LLM:
        """The LLM itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _tokenizer(source: Any, revision: str | None, trust_remote_code: bool, explicit: bool) -> Tokenizer | None:
    """The tokenizer of a source; a model's folder without one is worth a warning, an explicit source is an error."""
    if source is None:
        return None
    try:
        return Tokenizer(source, revision=revision, trust_remote_code=trust_remote_code)
    except ModelNotSupported as error:
        if explicit:
            raise
        _log.warning("prompts have to be token ids, and outputs have no text: %s", error)
        return None


def _is_token_ids(prompts: Any) -> bool:
    if hasattr(prompts, "tolist"):
        return getattr(prompts, "ndim", 1) == 1
    return isinstance(prompts, Sequence) and bool(len(prompts)) and isinstance(prompts[0], int)


def _one_each(given: SamplingParams | Sequence[SamplingParams], count: int) -> Sequence[SamplingParams]:
    if isinstance(given, SamplingParams):
        return [given] * count
    if not isinstance(given, Sequence):
        raise InvalidRequest(
            f"sampling_params must be one SamplingParams or one per prompt, not {type(given).__name__}"
        )
    if len(given) != count:
        raise InvalidRequest(f"{len(given)} sampling_params for {count} prompts: pass one, or one per prompt")
    return given
