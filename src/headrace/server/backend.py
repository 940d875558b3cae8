"""What serves requests once the model is known: its tokenizer, its names, and the way of a call through the engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from headrace.config.server import ServerConfig
from headrace.engine.remote import EngineInfo, EngineLink
from headrace.errors import HeadraceError, ModelNotFound
from headrace.observability.metrics import ServerMetrics
from headrace.protocol.call import GenerationCall
from headrace.protocol.write import make_writer, new_response_id
from headrace.server.choice import Choice
from headrace.server.exchange import Exchange, Outcome
from headrace.server.generation import Generation
from headrace.server.load import engine_room
from headrace.server.overload import WaitingLine
from headrace.server.preparation import Preparation, Prepared
from headrace.server.prompts import PromptEncoder
from headrace.server.respond import Responder
from headrace.server.token_names import TokenNames
from headrace.text import TextStream, Tokenizer
from headrace.text.answers import AnswerParser, answer_format


@dataclass(frozen=True, slots=True)
class Tools:
    """What is passed in from outside.

    Attributes:
        clock: seconds, monotonic. wall_clock: seconds since 1970. random_bits: so many of them.
    """

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    random_bits: Callable[[int], int] = random.SystemRandom().getrandbits


class Backend:
    """Generates answers.

    Args:
        config: of the server. engine: ready. info: of it. tokenizer: of its model.
        line: lets requests in. metrics: count them. threads: for long texts. tools: clocks and chance.

    Attributes:
        names: that requests may give the model; the first is shown.
    """

    def __init__(
        self,
        config: ServerConfig,
        engine: EngineLink,
        info: EngineInfo,
        tokenizer: Tokenizer,
        line: WaitingLine,
        metrics: ServerMetrics,
        threads: ThreadPoolExecutor,
        tools: Tools,
    ) -> None:
        """Ready to serve."""
        self.info = info
        self.names = config.served_model_name or (info.model_name,)
        self.tokenizer = tokenizer
        self.encoder = PromptEncoder(tokenizer, info.vocab_size, info.max_model_len, threads)
        self.created = int(tools.wall_clock())
        self.created_at = datetime.fromtimestamp(self.created, UTC).isoformat().replace("+00:00", "Z")
        self._engine = engine
        self._line = line
        self._metrics = metrics
        self._tools = tools
        self._token_names = TokenNames(tokenizer)
        self._preparation = Preparation(
            self.encoder, engine, info.generation_defaults, answer_format(tokenizer.inner), config.queue_timeout_s
        )

    def check_model(self, name: str | None) -> None:
        """Raises ModelNotFound for the name of another model."""
        if name is not None and name not in self.names:
            raise ModelNotFound(f"the model {name[:200]!r} is not served here; there is {', '.join(self.names)}")

    async def generate(self, call: GenerationCall, exchange: Exchange) -> None:
        """Serve one call: prepare, submit, answer. Cancelling ends it in the engine too.

        Raises:
            HeadraceError: one of its kinds, before anything was sent.
        """
        self.check_model(call.model)
        self._line.check_size(call.num_choices, engine_room(self._engine))
        prepared = await self._preparation.prepare(call, exchange.request_id)
        parsers = [self._parser(call, prepared, index) for index in range(call.num_choices)]
        generation = self._submit(call, prepared, parsers, exchange.started_s)
        writer = make_writer(
            call,
            new_response_id(call.endpoint, f"{self._tools.random_bits(96):024x}"),
            int(self._tools.wall_clock()),
            call.model or self.names[0],
        )
        wants_names = prepared.params.logprobs is not None or prepared.params.prompt_logprobs is not None
        names = self._token_names if wants_names else None
        responder = Responder(exchange, generation, writer, parsers, prepared.prompts, names)
        if call.stream:
            self._metrics.stream_opened()
        try:
            await responder.respond()
        finally:
            if call.stream:
                self._metrics.stream_closed()
            if not generation.is_over:
                generation.abandon()
            _note(exchange.outcome, generation, responder.usage().cached_tokens, prepared.num_prompt_tokens)

    def _parser(self, call: GenerationCall, prepared: Prepared, index: int) -> AnswerParser:
        return self._preparation.parser(
            call, prepared.tails[index // call.n], lambda _: f"call_{self._tools.random_bits(96):024x}"
        )

    def _submit(
        self, call: GenerationCall, prepared: Prepared, parsers: list[AnswerParser], started_s: float
    ) -> Generation:
        params = prepared.params
        # Stop strings are looked for as tokens come, so that the engine stops there, also when nothing is streamed.
        immediate = call.stream or bool(params.stop)
        choices = [
            Choice(
                index,
                request.request_id,
                TextStream(
                    self.tokenizer,
                    params.stop,
                    min_tokens=params.min_tokens,
                    skip_special_tokens=call.skip_special_tokens and not parsers[index].needs_special_tokens,
                ),
                request.num_prompt_tokens,
                immediate=immediate,
            )
            for index, request in enumerate(prepared.requests)
        ]
        generation = Generation(
            self._engine, self._line, self._metrics, self._tools.clock, choices, started_s, immediate=call.stream
        )
        now_s = self._tools.clock()
        self._line.admit(len(choices), prepared.num_queue_tokens, engine_room(self._engine), now_s)
        try:
            self._engine.submit(prepared.requests, generation.take)
        except HeadraceError:
            generation.withdraw()
            raise
        return generation


def _note(outcome: Outcome, generation: Generation, num_cached_tokens: int, num_prompt_tokens: int) -> None:
    """What the log line and the metrics are made from."""
    choices = generation.choices
    outcome.is_generation = True
    outcome.finish_reasons = tuple(choice.finish_reason or "cancelled" for choice in choices)
    outcome.num_prompt_tokens, outcome.num_cached_tokens = num_prompt_tokens, num_cached_tokens
    outcome.num_output_tokens = sum(choice.num_tokens for choice in choices)
    timing = choices[0].timing
    outcome.queued_s, outcome.prefill_s, outcome.ttft_s = timing.queued_s, timing.prefill_s, generation.ttft_s
