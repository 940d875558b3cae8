"""Random draws that are pure functions of (seed, position), and exact inverse distribution functions.

Law 7 asks for the same token alone and in any batch. Two things make that a property instead of a hope:

- The random numbers are counter-based: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
  easy as 1, 2, 3" (SC 2011), with the request's seed as the key and the token's position as the counter. No state.
- Probabilities are summed as integers. A floating-point sum depends on the order of its terms, which libraries choose
  by the shape of the batch; an integer sum does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

_ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)

_FIXED_POINT = 2.0**40
"""What weight 1 becomes. 2**22 weights of at most 1 fit an int64; what is below 2**-40 of the likeliest is 0."""


def philox4x32(counters: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Philox4x32-10 on R counters at once.

    Args:
        counters: [4, R], 32-bit words.
        keys: [2, R], 32-bit words.

    Returns:
        [4, R], 32-bit random words.
    """
    even, odd = counters[0::2], counters[1::2]
    for _ in range(_ROUNDS):
        products = even * _MULTIPLIERS
        even, odd = (products[::-1] >> _WORD) ^ odd ^ keys, products[::-1] & _LOW
        keys = (keys + _KEY_STEPS) & _LOW
    return np.stack((even[0], odd[0], even[1], odd[1]))


def uniforms(seeds: Sequence[int] | npt.NDArray[np.uint64], positions: Sequence[int]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) per row, of 53 random bits; seeds and positions are at least 0 and less than 2**64."""
    key = np.array(seeds, dtype=np.uint64)
    counter = np.array(positions, dtype=np.uint64)
    zero = np.zeros_like(counter)
    words = philox4x32(
        np.stack((counter & _LOW, counter >> _WORD, zero, zero)),
        np.stack((key & _LOW, key >> _WORD)),
    )
    bits: npt.NDArray[np.uint64] = (words[0] << _WORD | words[1]) >> np.uint64(11)
    return bits.astype(np.float64) * np.float64(2.0**-53)


def fixed_point(weights: torch.Tensor) -> torch.Tensor:
    """Weights of 0 up to a few as int64, whose sums are exact in any order."""
    return (weights.double() * _FIXED_POINT).long()


def draw(weights: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert the distribution function of each row.

    Args:
        weights: [R, N] int64, from `fixed_point`; a row's sum must not be 0.
        uniform: [R, 1] float64 in [0, 1).

    Returns:
        The drawn index [R, 1] int64, whose weight is never 0; and where in that index's share of the distribution
        function `uniform` fell, [R, 1] float64 in [0, 1): itself uniform, for a draw among what the index stands for.
        Rows of NaN weights give some valid index.
    """
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    target = torch.minimum((uniform * total.double()).long(), total - 1)
    index = torch.searchsorted(cumulative, target, right=True).clamp_(max=weights.shape[-1] - 1)
    share = weights.gather(-1, index)
    within = target - cumulative.gather(-1, index) + share
    return index, within.double() / share.double()
