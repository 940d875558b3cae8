"""One answer on its way out: from the engine's tokens to pieces of text that wait to be sent.

What a slow reader has not fetched is kept as the text and tokens of the answer, so it is bounded by the answer itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from headrace.engine.outputs import EngineOutput, FinishReason, Timing, TokenLogprobs
from headrace.text import TextStream


class Piece(NamedTuple):
    """Text that became final with these tokens; tokens whose text is not final yet come with an empty one.

    Attributes:
        text: without stop strings. token_ids: the stop token included. logprobs: one per token when asked for.
    """

    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[TokenLogprobs]


class Choice:
    """One sequence of a request. Fed and read on the event loop.

    At a stop string it has its `finish_reason` before the engine has heard of it; `is_ended` comes a step later.

    Args:
        index: in the answer. request_id: of the sequence in the engine. text: makes its text.
        num_prompt_tokens: that it begins with: of its prompt, and of the answer what another server has given out.
        immediate: make text as tokens come; else all at the end, which takes a tenth of the time.

    Attributes:
        num_tokens: generated. finish_reason, stop_reason: None while it runs.
        output: the engine's last word on it; None before. last_token_s: when its newest tokens came.
        num_cached_tokens: of its prompt; known with its first token.
    """

    __slots__ = (
        "_immediate", "_kept_ids", "_kept_logprobs", "_pieces", "_text", "finish_reason", "index", "last_token_s",
        "num_cached_tokens", "num_prompt_tokens", "num_tokens", "output", "request_id", "stop_reason",
    )  # fmt: skip

    def __init__(
        self, index: int, request_id: str, text: TextStream, num_prompt_tokens: int, *, immediate: bool
    ) -> None:
        """Nothing came yet."""
        self.index = index
        self.request_id = request_id
        self.num_prompt_tokens = num_prompt_tokens
        self.num_cached_tokens = 0
        self.num_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.output: EngineOutput | None = None
        self.last_token_s: float | None = None
        self._immediate = immediate
        self._text = text
        self._pieces: list[Piece] = []
        self._kept_ids: list[int] = []
        self._kept_logprobs: list[TokenLogprobs] = []

    @property
    def is_ended(self) -> bool:
        """Whether the engine has ended it."""
        return self.output is not None

    @property
    def timing(self) -> Timing:
        """Of the engine's last word."""
        return (self.output.timing if self.output is not None else None) or Timing()

    def take(self, output: EngineOutput) -> bool:
        """One output of the engine; returns whether the sequence has ended at a stop string and is to be cancelled."""
        stopped = False
        self.num_cached_tokens = output.num_cached_tokens
        if self.finish_reason is None:  # else it ended at a stop string, and the engine goes on for a moment
            ids = output.new_token_ids
            if self._immediate:
                # The end-of-sequence or stop token is no text, whether the tokenizer calls it special or not.
                stopped = bool(ids) and self._make_text(ids, output.new_logprobs, output.finish_reason == "stop")
            else:
                self._kept_ids.extend(ids)
                self._kept_logprobs.extend(output.new_logprobs)
                self.num_tokens += len(ids)
            if output.finish_reason is not None and not stopped:
                self._finish(output)
        if output.finish_reason is not None:
            self.output = output
        return stopped and output.finish_reason is None

    @property
    def has_pieces(self) -> bool:
        """Whether there is something to drain."""
        return bool(self._pieces)

    def drain(self, most: int) -> list[Piece]:
        """The oldest pieces that were not fetched yet, so many at most; text behind the last token comes with it."""
        pieces = self._pieces
        if len(pieces) <= most + 1:
            self._pieces = []
            return pieces
        self._pieces = pieces[most:]
        return pieces[:most]

    def _make_text(self, ids: Sequence[int], logprobs: Sequence[TokenLogprobs], ends_with_stop: bool) -> bool:
        delta = self._text.push(ids[:-1] if ends_with_stop else ids)
        if delta.stop_string is None:
            self.num_tokens += len(ids)
            self._pieces.append(Piece(delta.text, ids, logprobs))
            return False
        self.num_tokens += delta.num_tokens
        self._pieces.append(Piece(delta.text, ids[: delta.num_tokens], logprobs[: delta.num_tokens]))
        self.finish_reason, self.stop_reason = "stop", delta.stop_string
        return True

    def _finish(self, output: EngineOutput) -> None:
        if not self._immediate:
            self.num_tokens = 0
            # A guide can end an answer without a token of its own: then the last one is text.
            ends_with_stop = output.finish_reason == "stop" and bool(output.new_token_ids)
            if self._make_text(self._kept_ids, self._kept_logprobs, ends_with_stop):
                return
        last = self._text.flush()
        if last.text:
            self._pieces.append(Piece(last.text, (), ()))
        if last.stop_string is not None:
            self.finish_reason, self.stop_reason = "stop", last.stop_string
        else:
            self.finish_reason, self.stop_reason = output.finish_reason, output.stop_reason
