"""Which tokens a guided row may choose from: its guide's, its ends where it is complete, and none that is banned."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from headrace.engine.plan import SamplingRow
from headrace.errors import GuideFailed


def allowed_tokens(row: SamplingRow, vocab_size: int) -> npt.NDArray[np.uint32] | None:
    """Bits [ceil(V / 32)] of the tokens that may be chosen, at least one; None when the answer ends without another.

    Args:
        row: with a guide. vocab_size: V, columns of the logits.

    Raises:
        GuideFailed: nothing is left to choose, with the reason; or the guide's own.
    """
    assert row.guide is not None
    num_tokens = row.position - len(row.prompt_token_ids)
    mask = row.guide.guide.mask(row.output_token_ids, num_tokens)
    bits = mask.bits.copy()
    _clear(bits, row.guide.eos_token_ids, vocab_size)
    if mask.is_complete:
        _set(bits, row.guide.end_token_ids, vocab_size)
    _clear(bits, row.banned_token_ids, vocab_size)
    if bits.any():
        return bits
    if not mask.is_complete:
        raise GuideFailed(f"after {num_tokens} tokens the guide allows nothing but tokens that are banned")
    if num_tokens < row.params.min_tokens:
        raise GuideFailed(
            f"the guide is complete after {num_tokens} tokens, and min_tokens={row.params.min_tokens} does not let it "
            f"end: ask for at most {num_tokens}"
        )
    return None


def _set(bits: npt.NDArray[np.uint32], token_ids: Iterable[int], vocab_size: int) -> None:
    for token in token_ids:
        if token < vocab_size:
            bits[token // 32] |= np.uint32(1 << token % 32)


def _clear(bits: npt.NDArray[np.uint32], token_ids: Iterable[int], vocab_size: int) -> None:
    for token in token_ids:
        if token < vocab_size:
            bits[token // 32] &= ~np.uint32(1 << token % 32)
