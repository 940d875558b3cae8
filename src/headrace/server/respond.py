"""Writes the answer of a call while it is generated, or when it is whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal

from headrace.engine.outputs import TokenLogprobs
from headrace.errors import HeadraceError, RequestFailed
from headrace.protocol.parts import Part
from headrace.protocol.progress import Progress
from headrace.protocol.write import PromptInfo, TokenLogprob, Usage, Writer
from headrace.server.choice import Choice, Piece
from headrace.server.exchange import Exchange
from headrace.server.generation import Generation
from headrace.server.token_names import TokenNames
from headrace.text.answers import AnswerParser

_log = logging.getLogger(__name__)

FinishReason = Literal["stop", "length"]
_JSON = b"application/json"
_PIECES_AT_ONCE = 256
"""Written for one choice before others have their turn on the loop: about two milliseconds' work."""


class Responder:
    """Writes one answer.

    What piled up while the client's socket or the loop was busy goes out in one send, each token still an event of its
    own. While a socket takes nothing, nothing is written for it: tokens wait as the text that they are.

    Args:
        exchange: whom to answer. generation: what is generated. writer: of the endpoint. parsers: one per choice.
        prompts: without their cached tokens. names: of tokens, where log-probabilities are wanted; else None.
        progress: of the stream, where a gateway wants to know of it; else None. headers: of a stream.
    """

    def __init__(
        self,
        exchange: Exchange,
        generation: Generation,
        writer: Writer,
        parsers: Sequence[AnswerParser],
        prompts: Sequence[PromptInfo],
        names: TokenNames | None,
        progress: Progress | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Nothing written yet."""
        self._exchange = exchange
        self._generation = generation
        self._writer = writer
        self._parsers = parsers
        self._prompts = prompts
        self._names = names
        self._progress = progress
        self._headers = headers
        self._is_begun = False
        self._is_told = [False] * len(generation.choices)
        self._num_reasoning_tokens = 0

    async def respond(self) -> None:
        """Answer. Raises the error of a generation that failed before anything was sent."""
        if self._writer.call.stream:
            await self._stream()
        else:
            await self._whole()

    def skip_given(self, given: Sequence[Sequence[int]]) -> None:
        """Write to nobody what another server has given out, so that everything stands where it stood there.

        Args:
            given: token ids of each choice; the choices have taken them.
        """
        self._is_begun = True
        self._writer.start(self._known_prompts())
        while not self._write_news([]):
            pass
        if self._names is not None:
            for index, ids in enumerate(given):
                self._writer.skip_logprobs(index, [self._names.token(token) for token in ids])
        if self._progress is not None:
            self._progress.forget()

    async def _whole(self) -> None:
        generation = self._generation
        while not generation.is_over and generation.error is None:
            await generation.news()
        if generation.error is not None:
            raise generation.error
        self._writer.start(self._known_prompts())
        while not self._write_news([]):
            await asyncio.sleep(0)
        await self._exchange.answer(200, self._writer.body(self.usage()), _JSON)

    async def _stream(self) -> None:
        generation, exchange = self._generation, self._exchange
        if not generation.is_over:  # or all of it was given out elsewhere
            await generation.news()  # an error of the queue is still a status of its own
        if generation.error is not None:
            raise generation.error
        await exchange.start_events(*self._headers)
        written: list[bytes] = []
        try:
            self._open(written)
            while not await self._write_round(written):
                written.clear()
        except Exception as error:
            _log.exception("the answer of request %s could not be written", exchange.request_id)
            await self._break_off(RequestFailed(f"the answer could not be written: {type(error).__name__}"), b"")

    def _open(self, written: list[bytes]) -> None:
        if self._is_begun:
            return
        opening = self._writer.start(self._known_prompts())
        if self._progress is None:
            written.append(opening)
        else:
            self._progress.open(opening)

    async def _write_round(self, written: list[bytes]) -> bool:
        """Send what there is and wait for more; returns whether that was the end."""
        generation, exchange = self._generation, self._exchange
        is_all = self._write_news(written)
        if self._progress is not None:
            written.append(self._progress.opened())
        if not is_all:
            await exchange.write(b"".join(written))
            await asyncio.sleep(0)
        elif generation.error is not None:
            await self._break_off(generation.error, b"".join(written))
            return True
        elif generation.is_over:
            written.append(self._end())
            await exchange.write(b"".join(written), is_last=True)
            return True
        else:
            if data := b"".join(written):
                await exchange.write(data)
            await generation.news()
        return False

    def _end(self) -> bytes:
        events, call = self._writer.end(self.usage()), self._writer.call
        if self._progress is None:
            return events
        has_usage = call.include_usage or call.endpoint in ("messages", "responses")
        return self._progress.closed(events, has_usage=has_usage)

    async def _break_off(self, error: HeadraceError, before: bytes) -> None:
        self._exchange.outcome.error_code = error.code
        await self._exchange.write(before + self._writer.error(error, self._exchange.request_id), is_last=True)

    def _write_news(self, data: list[bytes]) -> bool:
        """Append what there is to send of all choices; returns whether that is all there is by now."""
        is_all = True
        for choice in self._generation.choices:
            if not self._is_told[choice.index]:
                is_all &= self._write_choice(choice, data)
        return is_all

    def _write_choice(self, choice: Choice, data: list[bytes]) -> bool:
        if self._progress is not None:
            return self._write_choice_told(choice, self._progress, data)
        index, parser, parts = choice.index, self._parsers[choice.index], self._writer.parts
        data.extend(
            parts(index, self._read(parser, piece), piece.token_ids, self._named(piece.logprobs))
            for piece in choice.drain(_PIECES_AT_ONCE)
        )
        if choice.has_pieces:
            return False
        reason = choice.finish_reason
        if reason == "stop" or reason == "length":
            rest = parser.flush()
            if rest:
                data.append(parts(index, rest))
            self._finish(choice, reason, data)
        return True

    def _write_choice_told(self, choice: Choice, progress: Progress, data: list[bytes]) -> bool:
        """The same for a gateway: a piece's events are one group, and the end is one with the last piece."""
        index, parser, parts = choice.index, self._parsers[choice.index], self._writer.parts
        pieces = choice.drain(_PIECES_AT_ONCE)
        reason = None if choice.has_pieces else choice.finish_reason
        place_of_end = len(pieces)
        if reason == "stop" or reason == "length":
            place_of_end -= 1 + (len(pieces) > 1 and not pieces[-1].token_ids)
        ending = b""
        for place, piece in enumerate(pieces):
            events = parts(index, self._read(parser, piece), piece.token_ids, self._named(piece.logprobs))
            progress.took(index, piece.token_ids)
            if place < place_of_end:
                data.append(progress.marked(index, events))
            else:
                ending += events
        if reason == "stop" or reason == "length":
            rest = parser.flush()
            last = [ending, parts(index, rest) if rest else b""]
            self._finish(choice, reason, last)
            progress.ended(index, reason)
            data.append(progress.marked(index, b"".join(last)))
        return not choice.has_pieces

    def _read(self, parser: AnswerParser, piece: Piece) -> list[Part]:
        """What a piece's text means; its tokens are reasoning's when that is open before or after it."""
        was_reasoning = parser.is_reasoning
        parts = parser.push(piece.text)
        if was_reasoning or parser.is_reasoning:
            self._num_reasoning_tokens += len(piece.token_ids)
        return parts

    def _finish(self, choice: Choice, reason: FinishReason, data: list[bytes]) -> None:
        if self._writer.call.sampling.get("prompt_logprobs") is not None and choice.output is None:
            return  # they come with the engine's last word
        self._is_told[choice.index] = True
        prompt_logprobs = None if choice.output is None else choice.output.prompt_logprobs
        named = None
        if prompt_logprobs is not None and self._names is not None:
            named = [None if item is None else self._names.logprob(item) for item in prompt_logprobs]
        data.append(self._writer.finish_choice(choice.index, reason, choice.stop_reason, named))

    def _named(self, logprobs: Sequence[TokenLogprobs]) -> Sequence[TokenLogprob]:
        return self._names.logprobs(logprobs) if logprobs and self._names is not None else ()

    def _known_prompts(self) -> list[PromptInfo]:
        names = self._names if self._writer.call.echo else None
        return [
            prompt._replace(
                num_cached_tokens=self._num_cached_tokens(place),
                first=names.token(prompt.token_ids[0]) if names is not None else None,
            )
            for place, prompt in enumerate(self._prompts)
        ]

    def _num_cached_tokens(self, place: int) -> int:
        """Of one prompt: those that its first answer found; the others find what the first one computed."""
        first = self._generation.choices[place * self._writer.call.n]
        return first.num_cached_tokens

    def usage(self) -> Usage:
        """Of the whole request."""
        return Usage(
            sum(prompt.num_tokens for prompt in self._prompts),
            0 if self._writer.call.prompt_only else sum(choice.num_tokens for choice in self._generation.choices),
            sum(self._num_cached_tokens(place) for place in range(len(self._prompts))),
            self._num_reasoning_tokens if any(parser.marks_reasoning for parser in self._parsers) else None,
        )
