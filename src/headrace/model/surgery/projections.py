"""Which rows of which weights make an attention layer's queries, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import torch

from headrace.model.attention.interface import LayerSpec
from headrace.model.surgery.lease import Part

Pick = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Projections:
    """Rows of the merged weight, and the values that they gave in the watched pass, before norms and rotation.

    Attributes:
        parts: of queries, keys, values, in this order. query: [T, H, D]. key: [T, K, D]. value: [T, K, E].
    """

    parts: tuple[Part, ...]
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


def projections(products: Sequence[tuple[Part, torch.Tensor]], layer: LayerSpec) -> Iterator[Projections]:
    """Every way in which the products [T, N] may hold queries, keys and values."""
    if len(products) == 3:
        for order in permutations(products):
            values = [_heads(y, heads, dim) for (_, y), (heads, dim) in zip(order, _shapes(layer), strict=True)]
            query, key, value = values
            if query is not None and key is not None and value is not None:
                yield Projections(tuple(part for part, _ in order), query, key, value)
    elif len(products) == 1:
        part, y = products[0]
        for picks in (_one_after_the_other(layer), _head_by_head(layer)):
            yield from _picked(part, y, picks, layer)


def _shapes(layer: LayerSpec) -> tuple[tuple[int, int], ...]:
    h, k = layer.num_heads, layer.num_kv_heads
    return (h, layer.key_dim), (k, layer.key_dim), (k, layer.value_dim)


def _heads(y: torch.Tensor, heads: int, dim: int) -> torch.Tensor | None:
    return y.reshape(-1, heads, dim) if y.shape[1] == heads * dim else None


def _one_after_the_other(layer: LayerSpec) -> list[Pick]:
    """All queries, all keys, all values."""
    sizes = [heads * dim for heads, dim in _shapes(layer)]
    ends = [sum(sizes[: i + 1]) for i in range(3)]
    return [_slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _slice(start: int, end: int) -> Pick:
    return lambda rows: rows[start:end]


def _head_by_head(layer: LayerSpec) -> list[Pick]:
    """The queries of a key head, its key, its value; then those of the next."""
    k, group = layer.num_kv_heads, layer.num_heads // layer.num_kv_heads
    if layer.key_dim != layer.value_dim:
        return []

    def split(rows: torch.Tensor) -> torch.Tensor:
        return torch.unflatten(rows, 0, (k, group + 2, layer.key_dim))

    return [lambda rows: split(rows)[:, :group], lambda rows: split(rows)[:, group], lambda rows: split(rows)[:, -1]]


def _picked(part: Part, y: torch.Tensor, picks: list[Pick], layer: LayerSpec) -> Iterator[Projections]:
    shapes = _shapes(layer)
    if len(picks) != 3 or y.shape[1] != sum(heads * dim for heads, dim in shapes):
        return
    values = [
        pick(y.t()).reshape(heads, dim, -1).permute(2, 0, 1) for pick, (heads, dim) in zip(picks, shapes, strict=True)
    ]
    yield Projections(tuple(_of(part, pick) for pick in picks), *values)


def _of(part: Part, pick: Pick) -> Part:
    """Rows of a part."""
    bias = None if part.bias is None else pick(part.bias).reshape(-1)
    return Part(part.parameter, lambda weight: pick(part.view(weight)), bias)
