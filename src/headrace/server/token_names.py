"""Tokens one by one, as text and as bytes: what log-probabilities show of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from headrace.engine.outputs import TokenLogprobs
from headrace.protocol.write import TokenLogprob
from headrace.text import Tokenizer

_MAX_KNOWN = 1 << 16
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # what SentencePiece writes for a space


class TokenNames:
    """Text and bytes of single tokens of one tokenizer; remembers those it was asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Nothing asked yet."""
        self._tokenizer = tokenizer
        self._bytes_of_character = _byte_level_alphabet()
        self.name = lru_cache(_MAX_KNOWN)(self._name)

    def _name(self, token_id: int) -> tuple[str, bytes]:
        """Text of a token alone, what is no whole character as U+FFFD, and its bytes."""
        piece = self._tokenizer.inner.convert_ids_to_tokens(token_id)
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        if not isinstance(piece, str):
            return text, text.encode()
        if token_id in self._tokenizer.byte_token_ids:
            data = bytes([int(piece[3:5], 16)])
            return data.decode("utf-8", "replace"), data
        if piece.startswith(_SPACE) and not text.startswith(" "):
            text = " " + text  # a decoder takes the space of a first token away
        if "\N{REPLACEMENT CHARACTER}" in text and all(c in self._bytes_of_character for c in piece):
            return text, bytes(self._bytes_of_character[character] for character in piece)
        return text, text.encode()

    def token(self, token_id: int) -> TokenLogprob:
        """A token of which no log-probability is known."""
        return TokenLogprob(token_id, *self.name(token_id), 0.0)

    def logprob(self, given: TokenLogprobs) -> TokenLogprob:
        """A position as writers want it."""
        text, data = self.name(given.token_id)
        top = tuple(TokenLogprob(token, *self.name(token), value) for token, value in given.top.items())
        return TokenLogprob(given.token_id, text, data, given.logprob, given.rank, top)

    def logprobs(self, given: Sequence[TokenLogprobs]) -> list[TokenLogprob]:
        """Several positions."""
        return [self.logprob(item) for item in given]


def _byte_level_alphabet() -> dict[str, int]:
    """The characters that byte-level vocabularies write bytes with, as GPT-2 began it: printable ones stand for
    themselves, the others are moved up behind U+0100 in order.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(moved)}
