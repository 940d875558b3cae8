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
from headrace.model.surgery.linear import rows_of
from headrace.model.surgery.mlp import MlpForward
from headrace.model.surgery.norm import NormForward

_X, _RESULT = 0, 1


class LayerProgram:
    """The forward of a decoder layer: [1, T, N] → [1, T, N]."""

    def __init__(self, lease: Lease, layer: Layer, paged: PagedModel) -> None:
        """The parts are packed already; the lease stays empty."""
        self._layer = layer
        self._context = paged.context
        self._is_whole = isinstance(layer.feed_forward, MlpForward)
        self._width = layer.attention.out.out_features
        self._program = self._write(Program(lease.kernels, paged.loaded.dtype, (self._width, self._width)))

    def _write(self, program: Program) -> Program:
        layer = self._layer
        n1, n2, n3, n4 = layer.norms
        first = self._norm(program, n1, _X)
        attended = self._attend(program, first)
        h = program.value(self._width) if self._is_whole else _RESULT
        self._sum(program, layer.attention.out, attended, n2, _X, h)
        if self._is_whole:
            shares = layer.side_by_side and n3 is n1
            second = first if shares else self._norm(program, n3, _X if layer.side_by_side else h)
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
        hidden = layer.hidden.take(args, kwargs)
        x = rows_of(hidden).contiguous()
        angles = None if layer.angles is None else layer.angles.take(args, kwargs)
        if angles is not None and angles[0].dtype != x.dtype:  # the kernel takes both in one dtype
            angles = angles[0].to(x.dtype), angles[1].to(x.dtype)
        cache, batch = self._context.at(layer.attention.attention.layer.index)
        step: Step = batch.prepared[self._context.implementation.name]
        result = torch.empty_like(x)
        self._program.run(step, cache, angles, (x, result))
        y = (result if self._is_whole else self._feed(x, result)).view(hidden.shape)
        return y if layer.rest is None else (y, *layer.rest)

    def _feed(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """H + s · n₄(feed_forward(n₃)), through the module itself."""
        _, _, n3, n4 = self._layer.norms
        entry = x if self._layer.side_by_side else h
        y: torch.Tensor = self._layer.feed_forward((entry if n3 is None else n3(entry))[None])[0]
        return torch.add(h, y if n4 is None else n4(y), alpha=self._layer.scale)
