"""Norms of queries and keys between their product and their rotation: per head, or over all heads of a token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from headrace.model.surgery.norm import Norm, read_norm
from headrace.model.surgery.watch import Watched


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """At most one kind: per head, RMS with weights [D]; or over all heads, `whole` (of queries, of keys)."""

    per_head: tuple[Norm, Norm] | None = None
    whole: tuple[Norm, ...] = ()

    @property
    def query_weight(self) -> torch.Tensor | None:
        """Per head, [D]."""
        return self.per_head[0].weight if self.per_head else None

    @property
    def key_weight(self) -> torch.Tensor | None:
        """Per head, [D]."""
        return self.per_head[1].weight if self.per_head else None

    @property
    def eps(self) -> float:
        """Of the norms per head."""
        return self.per_head[0].eps if self.per_head else 0.0

    @property
    def offset(self) -> float:
        """Of the norms per head."""
        return self.per_head[0].offset if self.per_head else 0.0

    def of_query(self, query: torch.Tensor) -> torch.Tensor:
        """Queries [T, H, D] after the norm."""
        return self._apply(query, 0)

    def of_key(self, key: torch.Tensor) -> torch.Tensor:
        """Keys [T, K, D] after the norm."""
        return self._apply(key, 1)

    def _apply(self, heads: torch.Tensor, index: int) -> torch.Tensor:
        if self.per_head:
            return self.per_head[index].reference(heads).to(heads.dtype)
        if self.whole:
            return self.whole[index].reference(heads.flatten(1)).to(heads.dtype).view(heads.shape)
        return heads


def find_norms(module: nn.Module, watched: Watched, query: torch.Tensor, key: torch.Tensor) -> Iterator[HeadNorms]:
    """The norms that a block's children may apply to queries [T, H, D] and keys [T, K, D] that its products gave."""
    calls = [(child, watched.calls[child]) for child in module.modules() if child in watched.calls]
    norms = [norm for child, call in calls if child is not module and (norm := read_norm(child, call)) is not None]
    if not norms:
        yield HeadNorms()
        return
    if len(norms) != 2:
        return
    for first, second in (norms, norms[::-1]):
        if _is_rms(first, second) and first.n == query.shape[2] and second.n == key.shape[2]:
            yield HeadNorms(per_head=(first, second))
        if first.n == query.shape[1] * query.shape[2] and second.n == key.shape[1] * key.shape[2]:
            yield HeadNorms(whole=(first, second))


def _is_rms(first: Norm, second: Norm) -> bool:
    """Whether the rotation kernel does both."""
    plain = all(not norm.centered and norm.bias is None and norm.weight is not None for norm in (first, second))
    return plain and (first.eps, first.offset) == (second.eps, second.offset)
