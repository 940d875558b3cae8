"""Text of a growing list of token ids, as far as it is final."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders write in place of bytes that are not, or not yet, a character."""

_LONGEST_WINDOW = 16
_MAX_UTF8_BYTES = 4


class Decoder(Protocol):
    """What of a tokenizer is needed here; see `headrace.text.Tokenizer`."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        ...

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that decode leaves out when special tokens are skipped."""
        ...

    @property
    def byte_token_ids(self) -> frozenset[int]:
        """Ids of tokens that spell one byte."""
        ...


class IncrementalDetokenizer:
    """Turns token ids into text piece by piece; what was given out never changes.

    All pieces and the flush together are `tokenizer.decode` of all ids. One exception: where byte tokens (Llama's
    <0x…>) spell a malformed run, transformers turns the run as a whole into U+FFFD; here the characters that were
    complete before it broke stay, because they were given out when they were complete.

    ::

        … ids already given out │ context │ held back
                                └──────── window ────┘ decoded on each push, its first `_emitted` characters skipped

    Decoding the last piece together with the one before it is what keeps the space that a decoder strips from the
    first token. The method, and its two decodes of a few tokens per push whatever the length, are from
    text-generation-inference (`decode_token`), where vLLM has it from. Added here: text in front of an unfinished
    character is not held back with it, and windows of bytes that never become a character stay short.
    """

    def __init__(self, tokenizer: Decoder, *, skip_special_tokens: bool = True) -> None:
        """Start with no text."""
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._special = tokenizer.special_token_ids if skip_special_tokens else frozenset[int]()
        self._bytes = tokenizer.byte_token_ids
        self._window: list[int] = []
        self._num_context = 0
        self._emitted = 0

    def push(self, token_ids: Iterable[int]) -> str:
        """Take the next ids; returns the text that became final, often that of the same ids, maybe none."""
        # A special token that stood alone in the context would leave the next token without one.
        ids = [i for i in token_ids if i not in self._special]
        if self._bytes.isdisjoint(ids):
            return self._extend(ids) if ids else ""
        return "".join(self._extend([i]) for i in ids)  # so that the text is the same however the ids are batched

    def flush(self) -> str:
        """The rest of the text, now that no ids follow: an unfinished character is U+FFFD."""
        rest = self._decode(self._window)[self._emitted :]
        self._window, self._num_context, self._emitted = [], 0, 0
        return rest

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)

    def _extend(self, ids: list[int]) -> str:
        self._window += ids
        text = self._decode(self._window)
        final = self._final_length(text)
        new = text[self._emitted : final]
        self._emitted = max(self._emitted, final)
        if final == len(text) and (new or len(self._window) > _LONGEST_WINDOW):
            self._move_window(self._num_context)
        elif len(self._window) > _LONGEST_WINDOW:
            self._shorten_unfinished()
        return new

    def _final_length(self, text: str) -> int:
        """How many characters of the window's text no further token can change."""
        if not text.endswith(REPLACEMENT):
            return len(text)
        if self._window[-1] not in self._bytes:
            return len(text) - 1  # UTF-8 decoders write one U+FFFD for the unfinished sequence at the end
        # Here it is one per byte of the whole run, until the run is well-formed; later than this it never is.
        waiting = len(self._window) - self._num_context
        return self._emitted if waiting <= _MAX_UTF8_BYTES else len(text)

    def _move_window(self, start: int) -> None:
        del self._window[:start]
        self._num_context = len(self._window)
        self._emitted = len(self._decode(self._window))

    def _shorten_unfinished(self) -> None:
        """Drop the front of a window that ends in U+FFFD again and again.

        From the first byte that can start a sequence, its tail decodes as it did within the whole. Were all of the
        tail still inside the unfinished sequence, it would be at most two bytes, so at most two characters.
        """
        tail = self._window[-_LONGEST_WINDOW // 2 :]
        text = self._decode(tail)
        if text.endswith(REPLACEMENT) and len(text) > 2:
            self._window, self._num_context, self._emitted = tail, 0, len(text) - 1
