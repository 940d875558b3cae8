"""What serves requests once the model is known: its tokenizer, its names, and the way of a call through the engine."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

from headrace.config.server import ServerConfig
from headrace.engine.remote import EngineInfo, EngineLink
from headrace.errors import HeadraceError, ModelNotFound
from headrace.observability.metrics import ServerMetrics
from headrace.protocol.call import Continuation, CountCall, DetokenizeCall, GenerationCall
from headrace.protocol.progress import Progress
from headrace.protocol.write import make_writer, new_response_id
from headrace.server.choice import Choice
from headrace.server.exchange import Exchange, Outcome
from headrace.server.generation import Generation
from headrace.server.load import engine_room
from headrace.server.overload import WaitingLine
from headrace.server.preparation import Preparation, Prepared
from headrace.server.prompts import PromptEncoder
from headrace.server.respond import Responder
from headrace.server.resuming import resume
from headrace.server.token_names import TokenNames
from headrace.text import TextStream, Tokenizer
from headrace.text.answers import AnswerParser, answer_format

TOKEN_IDS = "x-headrace-token-ids"
"""A gateway asks with it to be told of the tokens of a stream; the answer has it too."""
SEED = b"x-headrace-seed"
"""What such a stream was drawn from."""

_CHARACTERS_PER_GIVEN_TOKEN = 64


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
            served = ", ".join(self.names)
            raise ModelNotFound(f"the model {name[:200]!r} is not served here; there is {served}").with_hint(served)

    def without_effect(self, call: GenerationCall | CountCall | DetokenizeCall) -> tuple[str, ...]:
        """Fields that are taken and that this model has no use for: tools that its template never mentions."""
        is_forced = isinstance(call, GenerationCall) and call.tool_choice.mode in ("required", "named")
        is_told = isinstance(call, DetokenizeCall) or not call.tools or self.tokenizer.reads_tools
        return () if is_told or is_forced else ("tools",)

    async def generate(self, call: GenerationCall, exchange: Exchange) -> None:
        """Serve one call: prepare, submit, answer. Cancelling ends it in the engine too.

        Raises:
            HeadraceError: one of its kinds, before anything was sent.
        """
        self.check_model(call.model)
        self._line.check_size(call.num_choices, engine_room(self._engine))
        tells = call.stream and exchange.headers.get(TOKEN_IDS) == "1"
        begun = call.continuation
        seed = begun.seed if begun is not None else self._tools.random_bits(64) if tells else None
        prepared = await self._preparation.prepare(call, exchange.request_id, seed)
        response_id = self._new_id(call) if begun is None else begun.response_id
        parsers = [self._parser(call, prepared, index, response_id) for index in range(call.num_choices)]
        choices = self._choices(call, prepared, parsers)
        if begun is not None:
            await self._resume(begun, choices, prepared)
        generation = Generation(
            self._engine,
            self._line,
            self._metrics,
            self._tools.clock,
            choices,
            exchange.started_s,
            immediate=call.stream,
        )
        responder = self._responder(call, exchange, generation, prepared, parsers, response_id, tells)
        if begun is not None:
            given = [choice.token_ids for choice in begun.choices]
            await self.encoder.in_time(_work(begun), lambda: responder.skip_given(given))
        self._submit(generation, prepared)
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

    def _new_id(self, call: GenerationCall) -> str:
        return new_response_id(call.endpoint, f"{self._tools.random_bits(96):024x}")

    def _responder(
        self,
        call: GenerationCall,
        exchange: Exchange,
        generation: Generation,
        prepared: Prepared,
        parsers: list[AnswerParser],
        response_id: str,
        tells: bool,
    ) -> Responder:
        created = None if call.continuation is None else call.continuation.created
        writer = make_writer(
            call,
            response_id,
            int(self._tools.wall_clock()) if created is None else created,
            call.model or self.names[0],
        )
        wants_names = prepared.params.logprobs is not None or prepared.params.prompt_logprobs is not None
        return Responder(
            exchange,
            generation,
            writer,
            parsers,
            prepared.prompts,
            self._token_names if wants_names else None,
            Progress(call.num_choices) if tells else None,
            _told_headers(prepared.seed) if tells else (),
        )

    def _parser(self, call: GenerationCall, prepared: Prepared, index: int, response_id: str) -> AnswerParser:
        return self._preparation.parser(
            call, prepared.tails[index // call.n], lambda number: call_id(response_id, index, number)
        )

    def _choices(self, call: GenerationCall, prepared: Prepared, parsers: list[AnswerParser]) -> list[Choice]:
        params = prepared.params
        # Also when nothing is streamed: the engine stops at a stop string, and each token counts as what it is part of.
        immediate = call.stream or bool(params.stop) or any(parser.marks_reasoning for parser in parsers)
        return [
            Choice(
                index,
                "" if request is None else request.request_id,
                TextStream(
                    self.tokenizer,
                    params.stop,
                    min_tokens=params.min_tokens,
                    skip_special_tokens=call.skip_special_tokens and not parsers[index].needs_special_tokens,
                ),
                0 if request is None else request.num_tokens,
                immediate=immediate,
            )
            for index, request in enumerate(prepared.requests)
        ]

    async def _resume(self, begun: Continuation, choices: list[Choice], prepared: Prepared) -> None:
        """Bring the choices to where another server left them; raises InvalidRequest where that is no place."""

        def work() -> None:
            eos = frozenset(self.info.eos_token_ids)
            for choice in choices:
                resume(choice, begun.choice(choice.index), prepared.params, eos)

        await self.encoder.in_time(_work(begun), work)

    def _submit(self, generation: Generation, prepared: Prepared) -> None:
        requests = prepared.live_requests
        if not requests:
            return  # all choices were brought to their end elsewhere
        now_s = self._tools.clock()
        self._line.admit(len(requests), prepared.num_queue_tokens, engine_room(self._engine), now_s)
        try:
            self._engine.submit(requests, generation.take)
        except HeadraceError:
            generation.withdraw()
            raise


def call_id(response_id: str, choice: int, number: int) -> str:
    """Of a call of a tool: of the answer's id alone, so that a server that goes on with the answer writes the same."""
    return f"call_{blake2b(f'{response_id}/{choice}/{number}'.encode(), digest_size=12).hexdigest()}"


def _told_headers(seed: int | None) -> list[tuple[bytes, bytes]]:
    headers = [(TOKEN_IDS.encode(), b"1")]
    return headers if seed is None else [*headers, (SEED, b"%d" % seed)]


def _work(begun: Continuation) -> int:
    """What it takes to go through the given tokens, in characters of a prompt."""
    return _CHARACTERS_PER_GIVEN_TOKEN * sum(len(choice.token_ids) for choice in begun.choices)


def _note(outcome: Outcome, generation: Generation, num_cached_tokens: int, num_prompt_tokens: int) -> None:
    """What the log line and the metrics are made from."""
    choices = generation.choices
    outcome.is_generation = True
    outcome.finish_reasons = tuple(choice.finish_reason or "cancelled" for choice in choices)
    outcome.num_prompt_tokens, outcome.num_cached_tokens = num_prompt_tokens, num_cached_tokens
    outcome.num_output_tokens = sum(choice.num_tokens for choice in choices)
    timing = choices[0].timing
    outcome.queued_s, outcome.prefill_s, outcome.ttft_s = timing.queued_s, timing.prefill_s, generation.ttft_s
