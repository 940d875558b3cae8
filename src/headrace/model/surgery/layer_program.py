"""Decoder layers on the CPU kernels: what `layer` composes, written down at load and run in one call at a step.

::

    x ─► n₁ ─► [Wq; Wk; Wv] ─► norms, rotation, cache ─► attention ─► Wo, n₂, + x ─► h ─► n₃ ─► feed-forward, n₄, + h
    └────────────────────────────── the program ──────────────────────────────────┘
    └──────────────────────────────────── with a feed-forward that we know ────────────────────────────────────────┘
"""

from __future__ import annotations

from typing import Any

import torch

from headrace.model.kernels.linear import PackedLinear
from headrace.model.kernels.program import Program, Step
from headrace.model.paged_model import PagedModel
from headrace.model.surgery.layer import Layer
from headrace.model.surgery.lease import Lease
from headrace.model.surgery.mlp import MlpForward
from headrace.model.surgery.norm import NormForward

_X, _RESULT = 0, 1


class LayerProgram:
    """The forward of a decoder layer: [1, T, N] → [1, T, N], or the rows alone that the step keeps (`last_rows`).

    Attributes:
        index: of its attention layer.
    """

    def __init__(self, lease: Lease, layer: Layer, paged: PagedModel) -> None:
        """The parts are packed already; the lease stays empty."""
        self._layer = layer
        self._context = paged.context
        self._kernels = lease.kernels
        self._dtype = paged.loaded.dtype
        self._is_whole = isinstance(layer.feed_forward, MlpForward)
        self._width = layer.attention.out.out_features
        self.index = layer.attention.attention.layer.index
        self._program = self._write(takes=False)
        self._taking: Program | None = None

    def take_kept_rows(self, *, takes: bool) -> None:
        """Whether its result has the rows alone that the step keeps; the others end with attention."""
        self._taking = self._write(takes=True) if takes else None

    def _write(self, *, takes: bool) -> Program:
        layer, program = self._layer, Program(self._kernels, self._dtype, (self._width, self._width))
        n1, n2, n3, n4 = layer.norms
        x = _X
        first = self._norm(program, n1, x)
        attended = self._attend(program, first)
        if takes:
            x, first, attended = program.take((x, first, attended))
        h = program.value(self._width) if self._is_whole else _RESULT
        self._sum(program, layer.attention.out, attended, n2, x, h)
        if self._is_whole:
            shares = layer.side_by_side and n3 is n1
            second = first if shares else self._norm(program, n3, x if layer.side_by_side else h)
            mlp: MlpForward = layer.feed_forward
            inner = program.value(mlp.inner.out_features)
            program.linear(mlp.inner, second, inner, activation=mlp.activation)
            self._sum(program, mlp.down, inner, n4, h, _RESULT)
        return program

    def _attend(self, program: Program, x: int) -> int:
        """From the layer's first norm to attention's result."""
        forward = self._layer.attention
        attention, spec = forward.attention, forward.attention.layer
        qkv = program.value(forward.qkv.out_features)
        program.linear(forward.qkv, x, qkv)
        column = 0
        for norm in attention.norms.whole:
            program.norm(qkv, qkv, norm.n, norm.weight, norm.eps, bias=norm.bias, offset=norm.offset, column=column)
            column += norm.n
        program.rotate(qkv, spec.num_heads, forward.rotation)
        attended = program.value(spec.num_heads * spec.value_dim)
        program.attend(
            qkv, attended, spec.num_heads,
            scale=spec.scale, window=spec.window, chunk=spec.chunk, softcap=spec.softcap, sinks=attention.sinks,
        )  # fmt: skip
        return attended

    def _norm(self, program: Program, forward: NormForward | None, x: int, out: int | None = None) -> int:
        if forward is None:
            return x
        norm, out = forward.norm, program.value(self._width) if out is None else out
        program.norm(
            x, out, norm.n, norm.weight, norm.eps, bias=norm.bias, centered=norm.centered, offset=norm.offset
        )  # fmt: skip
        return out

    def _sum(
        self, program: Program, matrix: PackedLinear, x: int, norm: NormForward | None, residual: int, out: int
    ) -> None:
        """Out = residual + s · norm(matrix · x)."""
        if norm is None and self._layer.scale == 1.0:
            program.linear(matrix, x, out, residual)
            return
        y = program.value(self._width)
        program.linear(matrix, x, y)
        self._norm(program, norm, y, y)
        program.add(y, residual, out, self._layer.scale)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Hidden states and angles are where the layer itself has them."""
        layer = self._layer
        hidden = layer.hidden.take(args, kwargs).contiguous()
        if hidden.dtype != self._dtype:
            raise ValueError(f"hidden states are {hidden.dtype}, the layer is {self._dtype}")
        context = self._context
        cache, batch = context.at(self.index)
        step: Step = batch.prepared[context.implementation.name]
        if layer.angles is not None:
            step.turn_by(layer.angles.place.take(args, kwargs), self._dtype)
        if self._taking is None or context.kept is None:
            result = torch.empty_like(hidden)
            self._program.run(step, cache, (hidden, result))
        else:
            result = hidden.new_empty(1, len(context.kept), self._width)
            self._taking.run(step, cache, (hidden, result), context.kept)
            hidden = hidden[:, context.kept] if layer.side_by_side else hidden
        y = result if self._is_whole else self._feed(hidden, result)
        return y if layer.rest is None else (y, *layer.rest)

    def _feed(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """H + s · n₄(feed_forward(n₃)) [1, T, N], through the module itself."""
        _, _, n3, n4 = self._layer.norms
        entry = x if self._layer.side_by_side else h
        y: torch.Tensor = self._layer.feed_forward(entry if n3 is None else n3(entry))
        return torch.add(h, y if n4 is None else n4(y), alpha=self._layer.scale)
