"""The text of one sequence while it is generated: detokenized, and cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.text.detokenizer import Decoder, IncrementalDetokenizer
from headrace.text.stop_strings import StopStringMatcher


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What a push added to the text.

    Attributes:
        text: new text; never taken back.
        num_tokens: how many of the pushed tokens belong to the sequence: all of them, unless a stop string was
            complete before the last one.
        stop_string: the stop string that ended the text, or None.
    """

    text: str
    num_tokens: int = 0
    stop_string: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self.stop_string is not None


class TextStream:
    """One sequence's way from token ids to the text that a client sees. Used by one thread at a time."""

    def __init__(
        self,
        tokenizer: Decoder,
        stop: Sequence[str] = (),
        *,
        min_tokens: int = 0,
        skip_special_tokens: bool = True,
    ) -> None:
        """Start with no text.

        Args:
            tokenizer: of the model.
            stop: strings that end the text and are not part of it.
            min_tokens: stop strings are looked for from the text of this token (counted from 1) on.
            skip_special_tokens: leave special tokens out of the text.
        """
        self._detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
        self._matcher = StopStringMatcher(stop) if stop else None
        self._min_tokens = min_tokens
        self._num_tokens = 0
        self._stop_string: str | None = None

    def push(self, token_ids: Sequence[int]) -> TextDelta:
        """Take the next tokens; those that come after a stop string are counted as not belonging to the sequence."""
        if self._stop_string is not None:
            return TextDelta("", 0, self._stop_string)
        if self._matcher is None:
            self._num_tokens += len(token_ids)
            return TextDelta(self._detokenizer.push(token_ids), len(token_ids))
        text = ""
        for place, token_id in enumerate(token_ids):
            self._num_tokens += 1
            piece, stop = self._match(self._detokenizer.push((token_id,)))
            text += piece
            if stop is not None:
                return TextDelta(text, place + 1, stop)
        return TextDelta(text, len(token_ids))

    def flush(self) -> TextDelta:
        """The end of the text, when no tokens follow; it may still complete a stop string."""
        if self._stop_string is not None:
            return TextDelta("", 0, self._stop_string)
        text, stop = self._match(self._detokenizer.flush())
        if self._matcher is not None and stop is None:
            text += self._matcher.flush()
        return TextDelta(text, 0, stop)

    def _match(self, text: str) -> tuple[str, str | None]:
        if self._matcher is None or self._num_tokens < self._min_tokens:
            return text, None
        text, self._stop_string = self._matcher.push(text)
        return text, self._stop_string
