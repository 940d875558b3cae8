"""A compiled guide in use: for the tokens of one answer so far, which tokens may come next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import GuideFailed
from headrace.text.guides.grammar import shortened


class GuideMask(NamedTuple):
    """What may come after some tokens.

    Attributes:
        bits: uint32 [ceil(V / 32)]; token t may come next when bit t % 32 of word t // 32 is set. Must not be changed.
        is_complete: whether the text so far may be the whole answer.
    """

    bits: npt.NDArray[np.uint32]
    is_complete: bool

    @property
    def is_final(self) -> bool:
        """Whether the text so far is the whole answer, and nothing more can come."""
        return self.is_complete and not self.bits.any()


class Guide:
    """One answer's way through a grammar.

    `mask` is a function of the tokens so far: what is kept from call to call only makes it fast. So an answer that is
    preempted and resumed, or continued from tokens that were generated elsewhere, needs nothing of its own, and a step
    that is executed again gets the same mask again. Thread-safe; used by one thread at a time to any purpose.

    Args:
        matcher: llguidance's, at the start of the grammar; this guide's own. vocab_size: V, of the model.
        num_words: 32-bit words of the matcher's masks. end_id: the id that stands for the end in them, none of the
            tokenizer's.
    """

    def __init__(self, matcher: Any, vocab_size: int, num_words: int, end_id: int) -> None:
        """At the start."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._num_words = num_words
        self._end_id = end_id
        self._lock = threading.Lock()
        self._num_taken = 0
        self._mask: GuideMask | None = None  # after the tokens taken

    def copy(self) -> Guide:
        """Another answer's guide, at the same place."""
        with self._lock:
            twin = Guide(self._matcher.deep_copy(), self._vocab_size, self._num_words, self._end_id)
            twin._num_taken, twin._mask = self._num_taken, self._mask
            return twin

    def mask(self, output_token_ids: Sequence[int], num_tokens: int | None = None) -> GuideMask:
        """What may come after the first `num_tokens` (all, by default) of the answer's tokens.

        The tokens must be those of earlier calls and maybe more of them, or fewer.

        Raises:
            GuideFailed: a token is not of the grammar, or the state grew past llguidance's limits.
        """
        count = len(output_token_ids) if num_tokens is None else num_tokens
        with self._lock:
            if count < self._num_taken:
                self._matcher.reset()
                self._num_taken, self._mask = 0, None
            for token in output_token_ids[self._num_taken : count]:
                self._take(token)
            if self._mask is None:
                self._mask = self._compute()
            return self._mask

    def _take(self, token: int) -> None:
        # A token past the matcher's ids has no text, and no grammar allows it.
        if token >= self._num_words * 32 or not self._matcher.consume_token(token):
            words = self._matcher.get_error() or "the grammar does not allow it there"
            raise GuideFailed(f"token {token}, number {self._num_taken} of the answer: {shortened(words)}")
        self._num_taken += 1
        self._mask = None

    def _compute(self) -> GuideMask:
        words = np.zeros(self._num_words, dtype=np.uint32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if self._matcher.is_error():
            message = shortened(self._matcher.get_error())
            raise GuideFailed(f"the guide cannot go on after {self._num_taken} tokens: {message}")
        word, bit = divmod(self._end_id, 32)
        end = np.uint32(1 << bit)
        is_complete = bool(words[word] & end)
        words[word] &= ~end
        return GuideMask(_fitted(words, self._vocab_size), is_complete)


def _fitted(words: npt.NDArray[np.uint32], vocab_size: int) -> npt.NDArray[np.uint32]:
    """Words for just the model's ids: the tokenizer may have some that the model has not."""
    num_words = -(-vocab_size // 32)
    fitted = words[:num_words]
    if vocab_size % 32:
        fitted[-1] &= np.uint32((1 << vocab_size % 32) - 1)
    return fitted
