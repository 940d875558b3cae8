"""Decoder layers: norms, attention, feed-forward and the sums between them, on rows.

::

    one after the other   h = x + s · n₂(attention(n₁(x)))      y = h + s · n₄(feed_forward(n₃(h)))
    side by side          y = x + s · n₂(attention(n₁(x))) + s · n₄(feed_forward(n₃(x)))

Each norm may be missing, and s is mostly 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from headrace.model.surgery.arguments import Angles, Place, find_angles, find_hidden, is_closed
from headrace.model.surgery.attention import AttentionForward, beside
from headrace.model.surgery.kit import AddsAndNorms
from headrace.model.surgery.lease import Lease
from headrace.model.surgery.linear import rows_of
from headrace.model.surgery.mlp import MlpForward
from headrace.model.surgery.norm import NormForward
from headrace.model.surgery.numerics import same
from headrace.model.surgery.watch import Call, Watched

Rows = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """The parts of a layer that are there; `norms` are n₁ … n₄.

    Attributes:
        feed_forward: MlpForward, or a module that has its own ways. scale: s.
        hidden, angles, rest: as in `Attention`, of the layer's call.
    """

    attention: AttentionForward
    feed_forward: Any
    norms: tuple[NormForward | None, ...]
    side_by_side: bool
    scale: float
    hidden: Place
    angles: Angles | None
    rest: tuple[None, ...] | None


def read_layer(module: nn.Module, watched: Watched) -> list[Layer]:
    """What a layer may be, by who got whose result in the watched pass; which of them it is is for the proof to say."""
    call, blocks = watched.calls[module], _blocks(module, watched)
    places = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, torch.Tensor)]
    hidden, angles, rest = find_hidden(call, places), find_angles(call), beside(call.result)
    if blocks is None or hidden is None or rest is False or not is_closed(call, hidden, angles):
        return []
    attention, feed_forward = blocks
    inner, attended, fed = _forward(attention).attention, watched.calls[attention], watched.calls[feed_forward]
    if inner.angles is not None and (angles is None or not _same_angles(angles, call, inner.angles, attended)):
        return []
    norms = {m: watched.calls[m] for m in module.children() if isinstance(_forward(m), NormForward)}
    third = _before(norms, fed.args[0])
    found = (
        _before(norms, inner.hidden.take(attended.args, attended.kwargs)),
        _after(norms, attended.result[0] if isinstance(attended.result, tuple) else attended.result),
        third,
        _after(norms, fed.result),
    )
    entry = fed.args[0] if third is None else norms[third].args[0]
    block = _forward(feed_forward) if isinstance(_forward(feed_forward), MlpForward) else feed_forward
    forwards = tuple(None if norm is None else _forward(norm) for norm in found)
    parts = (_forward(attention), block, forwards, same(entry, hidden.take(call.args, call.kwargs)))
    numbers = [value for value in vars(module).values() if isinstance(value, float) and value > 0]
    return [Layer(*parts, scale, hidden, angles, rest) for scale in dict.fromkeys([1.0, *numbers])]


def _blocks(module: nn.Module, watched: Watched) -> tuple[nn.Module, nn.Module] | None:
    """The replaced attention, and the one other child that is neither a norm nor without weights; None if not so."""
    children = [m for m in module.children() if m in watched.calls and not isinstance(_forward(m), NormForward)]
    attentions = [m for m in children if isinstance(_forward(m), AttentionForward)]
    others = [m for m in children if m not in attentions and next(m.parameters(), None) is not None]
    if len(attentions) != 1 or len(others) != 1:
        return None
    call = watched.calls[others[0]]
    if len(call.args) != 1 or call.kwargs or not isinstance(call.result, torch.Tensor):
        return None
    return attentions[0], others[0]


def _forward(module: nn.Module) -> Any:
    return module.__dict__.get("forward")


def _before(norms: dict[nn.Module, Call], x: torch.Tensor) -> nn.Module | None:
    """The norm whose result x is."""
    return next((norm for norm, call in norms.items() if same(call.result, x)), None)


def _after(norms: dict[nn.Module, Call], y: torch.Tensor) -> nn.Module | None:
    """The norm that y goes into."""
    return next((norm for norm, call in norms.items() if same(call.args[0], y)), None)


def _same_angles(mine: Angles, call: Call, inner: Angles, attended: Call) -> bool:
    pairs = zip(mine.take(call.args, call.kwargs), inner.take(attended.args, attended.kwargs), strict=True)
    return all(same(a, b) for a, b in pairs)


class LayerForward:
    """The forward of a decoder layer, a call per operation: [1, T, N] → [1, T, N]."""

    def __init__(self, lease: Lease, layer: Layer) -> None:
        """The parts are packed already; the lease stays empty."""
        self._layer = layer
        self._feed_forward: Any = layer.feed_forward
        self._is_mlp = isinstance(layer.feed_forward, MlpForward)
        self._kit = cast(AddsAndNorms, lease.kit)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hidden states and angles are where the layer itself has them."""
        layer = self._layer
        hidden = layer.hidden.take(args, kwargs)
        angles = None if layer.angles is None else layer.angles.take(args, kwargs)
        x = rows_of(hidden)
        n1, n2, n3, n4 = layer.norms

        def attend(rows: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
            return layer.attention.rows(rows, angles, residual)

        first = x if n1 is None else n1(x)
        in_order = n3 is not None and n2 is None and not layer.side_by_side and layer.scale == 1.0
        if in_order and n3 is not None:
            h, second = self._kit.add_norm(attend(first, None), x, n3.norm)
        else:
            h = self._add(x, first, attend, n2)
            entry = x if layer.side_by_side else h
            second = first if n3 is n1 and layer.side_by_side else entry if n3 is None else n3(entry)
        y = self._add(h, second, self._feed, n4).view(hidden.shape)
        return y if layer.rest is None else (y, *layer.rest)

    def _add(
        self,
        residual: torch.Tensor,
        rows: torch.Tensor,
        block: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
        norm: NormForward | None,
    ) -> torch.Tensor:
        """Residual + s · norm(block(rows))."""
        if norm is None and self._layer.scale == 1.0:
            return block(rows, residual)
        y = block(rows, None)
        y = y if norm is None else norm(y)
        return torch.add(residual, y, alpha=self._layer.scale)

    def _feed(self, rows: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        if self._is_mlp:
            # The residual is ours, and this was its last use.
            mixed: torch.Tensor = self._feed_forward.rows(rows, residual, out=residual)
            return mixed
        y: torch.Tensor = self._feed_forward(rows[None])[0]
        return y if residual is None else residual + y
