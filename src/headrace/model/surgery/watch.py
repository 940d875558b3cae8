"""One watched forward pass over the paged cache: which modules run, on what, and what attention is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from headrace.model.attention.context import PagedContext
from headrace.model.attention.interface import LayerSpec
from headrace.model.batch import build_inputs
from headrace.model.paged_model import PagedModel

_BLOCK_SIZE = 16
_LENGTHS = (7, 5)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: its arguments and its result."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What a layer passed to attention, [T, H, D], [T, K, D], [T, K, E] and sinks, and what came back, [T, H, E]."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    sinks: torch.Tensor | None
    result: torch.Tensor


@dataclass(slots=True)
class Watched:
    """What was seen.

    Attributes:
        calls: the last call of every module that ran, in the order in which they first finished.
        num_calls: of each of them.
        attention: the attention calls, by layer.
    """

    calls: dict[nn.Module, Call] = field(default_factory=dict)
    num_calls: Counter[nn.Module] = field(default_factory=Counter)
    attention: dict[int, AttentionCall] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Row:
    token_ids: Sequence[int]
    start: int
    block_tables: tuple[Sequence[int], ...]


class Stage:
    """A small cache, and the step of two short sequences on it, as the model's modules are tried out on.

    Attributes:
        num_tokens: T of the step.
    """

    def __init__(self, paged: PagedModel) -> None:
        """Nothing is allocated yet."""
        self._paged = paged
        groups = paged.context.num_groups
        rows = [
            _Row([(11 * i + 7 * row + 3) % paged.vocab_size for i in range(length)], 0, ([row],) * groups)
            for row, length in enumerate(_LENGTHS)
        ]
        self._inputs = build_inputs(rows, groups, _BLOCK_SIZE, paged.loaded.device)
        self.num_tokens = sum(_LENGTHS)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have the cache."""
        paged = self._paged
        paged.context.allocate([len(_LENGTHS)] * paged.context.num_groups, _BLOCK_SIZE, paged.loaded.dtype,
                               paged.loaded.device)  # fmt: skip
        try:
            yield
        finally:
            paged.context.release()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Answer the attention calls of single modules."""
        with self._paged.context.step(self._inputs.batches):
            yield

    def attention_of(self, layer: int, run: Callable[[], Any]) -> AttentionCall:
        """What a module that calls attention for one layer passes to it."""
        calls: dict[int, AttentionCall] = {}
        with _noting(self._paged.context, calls), self.step():
            run()
        return calls[layer]

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """The model's logits [n, V] of these tokens of the step."""
        return self._paged.forward(self._inputs, tokens)

    def watch(self) -> Watched:
        """Run the whole model once."""
        watched = Watched()

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            watched.calls[module] = Call(args, kwargs, result)
            watched.num_calls[module] += 1

        hooks = [module.register_forward_hook(note, with_kwargs=True) for module in self._paged.loaded.model.modules()]
        try:
            with _noting(self._paged.context, watched.attention):
                self._paged.forward(self._inputs, self._inputs.last_tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return watched


@contextmanager
def _noting(context: PagedContext, calls: dict[int, AttentionCall]) -> Iterator[None]:
    """Note the attention calls that a context answers."""
    implementation: Any = context.implementation

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return getattr(implementation, name)

        def forward(self, query: Any, key: Any, value: Any, sinks: Any, layer: LayerSpec, *where: Any) -> torch.Tensor:
            result: torch.Tensor = implementation.forward(query, key, value, sinks, layer, *where)
            calls[layer.index] = AttentionCall(query, key, value, sinks, result)
            return result

    context.implementation = Noting()  # it answers as the one that it wraps
    try:
        yield
    finally:
        context.implementation = implementation
