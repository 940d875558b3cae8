"""How an attention layer turns its queries and keys, found among the known ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from headrace.model.surgery.numerics import difference, tolerance


@dataclass(frozen=True, slots=True)
class Rope:
    """The leading `rotary_dim` dims turn, in pairs (2i, 2i + 1) if interleaved, else (i, i + rotary_dim / 2).

    Attributes:
        angle_step: 2 where cos and sin repeat each angle (a, a, b, b, …), else 1.
    """

    rotary_dim: int
    interleaved: bool = False
    angle_step: int = 1

    def reference(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Heads [T, H, D] turned by cos and sin [T, R], in float32."""
        half = self.rotary_dim // 2
        c, s = (angle[:, :: self.angle_step][:, None, :half].float() for angle in (cos, sin))
        turning, rest = x[..., : self.rotary_dim].float(), x[..., self.rotary_dim :].float()
        pairs = torch.unflatten(turning, -1, (half, 2) if self.interleaved else (2, half))
        dim = -1 if self.interleaved else -2
        a, b = pairs.unbind(dim)
        turned = torch.stack((a * c - b * s, b * c + a * s), dim).flatten(-2)
        return torch.cat((turned, rest), -1)


NO_ROPE = Rope(0)


Pairs = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Heads [T, heads, D] before and after."""


def find_rope(pairs: Pairs, angles: tuple[torch.Tensor, torch.Tensor] | None) -> Rope | None:
    """The rotation that makes the second of each pair out of the first; None when none does.

    Args:
        pairs: of queries, and of keys. angles: cos and sin [T, R] that the layer was given, if it was.
    """
    candidates = [NO_ROPE]
    if angles is not None:
        candidates += _candidates(angles[0].shape[-1], pairs[0][0].shape[-1])
    found = {rope: rope_error(rope, pairs, angles) for rope in candidates}
    best = min(found, key=found.__getitem__)
    return best if found[best] <= tolerance(pairs[0][0].dtype) else None


def rope_error(rope: Rope, pairs: Pairs, angles: tuple[torch.Tensor, torch.Tensor] | None) -> float:
    """How far a rotation is from making the second of each pair out of the first."""
    if angles is None or rope == NO_ROPE:
        return max(difference(after, before) for before, after in pairs)
    return max(difference(after, rope.reference(before, *angles)) for before, after in pairs)


def _candidates(num_angles: int, dim: int) -> Iterator[Rope]:
    for interleaved in (False, True):
        if num_angles <= dim:
            yield Rope(num_angles, interleaved, 1)
            yield Rope(num_angles, interleaved, 2)
        if 2 * num_angles <= dim:
            yield Rope(2 * num_angles, interleaved, 1)
