"""Attention blocks: one product for queries, keys and values, norms and rotation into the cache, attention, one more.

::

    x ─► [Wq; Wk; Wv] ─► (norms over all heads) ─► norms per head, rotation, cache write ─► attention ─► Wo
         one product      rarely there             one kernel                              one kernel   one product
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from headrace.model.attention.interface import LayerSpec
from headrace.model.kernels.paged import Rotation
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.arguments import Angles, Place, far_away, find_angles, find_hidden, is_closed
from headrace.model.surgery.head_norms import HeadNorms, find_norms
from headrace.model.surgery.kit import AttendingApart
from headrace.model.surgery.lease import Lease, Part
from headrace.model.surgery.linear import rows_of
from headrace.model.surgery.numerics import FAR, difference, random_like, same, tolerance
from headrace.model.surgery.projections import projections
from headrace.model.surgery.rotation import Pairs, Rope, find_rope, rope_error
from headrace.model.surgery.watch import AttentionCall, Call, Stage, Watched


@dataclass(frozen=True, slots=True)
class Attention:
    """What an attention block does.

    Attributes:
        layer: of the cache. parts: rows of queries, keys, values. out: the last product.
        hidden: where its input is among its arguments; angles: where cos and sin are, if it turns anything.
        sinks: float32 [H] or None. rest: what it returns after the hidden states; None if it returns nothing else.
    """

    layer: LayerSpec
    parts: tuple[Part, ...]
    out: Part
    norms: HeadNorms
    rope: Rope
    hidden: Place
    angles: Angles | None
    sinks: torch.Tensor | None
    rest: tuple[None, ...] | None


def read_attention(
    module: nn.Module, watched: Watched, linears: dict[nn.Module, Part], paged: PagedModel
) -> Attention | None:
    """How a block computes, found from what its children and its attention call saw; None for what we do not know."""
    tag, call = getattr(module, "headrace_tag", None), watched.calls[module]
    if tag is None or len(tag.layers) != 1 or watched.num_calls[module] != 1:
        return None
    layer, noted = paged.layers[tag.layers[0]], watched.attention[tag.layers[0]]
    seen = {m: watched.calls[m] for m in module.modules() if m in linears and watched.num_calls[m] == 1}
    hidden, angles, rest = find_hidden(call, [c.args[0] for c in seen.values()]), find_angles(call), beside(call.result)
    outs = [m for m, c in seen.items() if same(c.args[0], noted.result) and same(c.result, _first(call.result))]
    if hidden is None or rest is False or len(outs) != 1 or not is_closed(call, hidden, angles):
        return None
    x = hidden.take(call.args, call.kwargs)
    products = [(linears[m], rows_of(c.result)) for m, c in seen.items() if same(c.args[0], x) and m not in outs]
    turns = None if angles is None else angles.take(call.args, call.kwargs)
    sinks = None if noted.sinks is None else noted.sinks.detach().float().contiguous()
    ways: list[tuple[float, Attention]] = []
    for found in projections(products, layer):
        if not torch.equal(found.value, noted.value):
            continue
        for norms in find_norms(module, watched, found.query, found.key):
            pairs = _pairs(norms, found.query, found.key, noted)
            rope = find_rope(pairs, turns)
            if rope is not None:
                way = Attention(layer, found.parts, linears[outs[0]], norms, rope, hidden, angles, sinks, rest)
                ways.append((rope_error(rope, pairs, turns), way))
    return min(ways, key=lambda way: way[0])[1] if ways else None


def holds_far_out(module: nn.Module, attention: Attention, call: Call, stage: Stage) -> bool:
    """Whether queries, keys and values are the same on large numbers and at far positions (clamps, growing scales)."""
    args, kwargs = far_away(call)
    x = random_like(attention.hidden.take(args, kwargs)) * FAR
    args, kwargs = attention.hidden.put(x, args, kwargs)
    noted = stage.attention_of(attention.layer.index, lambda: module(*args, **kwargs))
    wanted = (noted.query, noted.key, noted.value)
    products = [nn.functional.linear(rows_of(x), part.rows, part.bias) for part in attention.parts]
    query, key, value = (y.view(got.shape) for y, got in zip(products, wanted, strict=True))
    turns = None if attention.angles is None else attention.angles.take(args, kwargs)
    error = rope_error(attention.rope, _pairs(attention.norms, query, key, noted), turns)
    return max(error, difference(value, noted.value)) <= tolerance(x.dtype)


def _pairs(norms: HeadNorms, query: torch.Tensor, key: torch.Tensor, noted: AttentionCall) -> Pairs:
    return [(norms.of_query(query), noted.query), (norms.of_key(key), noted.key)]


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def beside(result: Any) -> Any:
    """What comes back beside the hidden states, a tuple of None; None for a bare tensor, False for anything else."""
    if isinstance(result, torch.Tensor):
        return None
    if isinstance(result, tuple) and result and all(value is None for value in result[1:]):
        return result[1:]
    return False


class AttentionForward:
    """The forward of an attention block, whose keys and values go to the paged cache.

    Attributes:
        attention: what it does. qkv, out: the matrices of its products. rotation: what happens between them.
    """

    def __init__(self, lease: Lease, attention: Attention, paged: PagedModel) -> None:
        """Pack its weights."""
        self._kit = lease.kit
        self._context = paged.context
        self.attention = attention
        self.qkv = lease.pack(attention.parts)
        self.out = lease.pack([attention.out])
        norms, rope = attention.norms, attention.rope
        self.rotation = Rotation(
            rope.rotary_dim, rope.interleaved, rope.angle_step,
            norms.query_weight, norms.key_weight, norms.eps, norms.offset,
        )  # fmt: skip
        nothing = torch.zeros(1, 1, dtype=paged.loaded.dtype, device=paged.loaded.device)
        self._no_angles = (nothing, nothing)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hidden states [1, T, N] and angles are where the block itself has them."""
        attention = self.attention
        x = attention.hidden.take(args, kwargs)
        angles = None if attention.angles is None else attention.angles.take(args, kwargs)
        y = self.rows(rows_of(x), angles).view(*x.shape[:-1], -1)
        return y if attention.rest is None else (y, *attention.rest)

    def rows(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor] | None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The same for x [T, N], with cos and sin [T, R], plus residual [T, N]."""
        layer = self.attention.layer
        cache, batch = self._context.at(layer.index)
        qkv = self.qkv(x)
        if qkv.dtype != cache.dtype:
            raise ValueError(f"queries are {qkv.dtype}, the cache is {cache.dtype}")
        self._norm_whole(qkv)
        cos, sin = self._no_angles if angles is None else angles
        if cos.dtype != qkv.dtype:  # the kernel takes both in one dtype
            cos, sin = cos.to(qkv.dtype), sin.to(qkv.dtype)
        query = self._kit.rotate_and_write(cache, self.rotation, qkv, cos, sin, batch.slot_mapping)
        implementation = cast(AttendingApart, self._context.implementation)  # surgery made sure of it
        out = implementation.attend(query, self.attention.sinks, layer, cache, batch)
        return self.out(out.view(len(out), -1), residual=residual)

    def _norm_whole(self, qkv: torch.Tensor) -> None:
        """Norms over all heads of a token, where the block has them, in place."""
        start = 0
        for norm in self.attention.norms.whole:
            part = qkv[:, start : start + norm.n]
            self._kit.norm(part, norm, out=part)
            start += norm.n
