"""The one op through which every attention layer of every model goes.

::

    transformers' attention module
      └─ AttentionInterface["headrace"]        this file's `attention_function`, reads the module's tag
           └─ torch.ops.headrace.paged_attention(q, k, v, sinks, context, layer)
                └─ contexts[context].attend(...)   the only place that knows the batch

It is an op of its own so that compiled and captured code sees one opaque call: whatever changes from step to step
(block tables, lengths) is read inside it, never by traced Python.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import nn

IMPLEMENTATION_NAME = "headrace"
"""The name under which transformers knows this attention."""


class AttentionContext(Protocol):
    """Answers the attention calls of one loaded model: a recorder at load, the paged cache afterwards."""

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None, layer: int
    ) -> torch.Tensor:
        """[T, H, D], [T, K, D], [T, K, E] → [T, H, E] for attention layer `layer`."""
        ...


class AttentionTag:
    """What `attention_function` finds on an attention module: whose it is and which layer.

    Attributes:
        handle: number of the context, also known inside traced code.
        layer: place of the module's call in the forward pass; None while the loader is still recording.
        recorder: sees the calls, with their keyword arguments, while the loader learns the model.
    """

    __slots__ = ("handle", "layer", "recorder")

    def __init__(self, handle: int, recorder: Any = None) -> None:
        """A tag of a module whose layer is not known yet."""
        self.handle = handle
        self.layer: int | None = None
        self.recorder = recorder


_contexts: weakref.WeakValueDictionary[int, AttentionContext] = weakref.WeakValueDictionary()
_handles = itertools.count()
_library: Any = torch.library.Library("headrace", "DEF")  # type: ignore[no-untyped-call]  # torch has no types here
_library.define("paged_attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, int context, int layer) -> Tensor")


def _run(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor | None, context: int, layer: int
) -> Any:
    return _contexts[context].attend(q, k, v, sinks, layer)


def _shape(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor | None, context: int, layer: int
) -> Any:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[2])


_library.impl("paged_attention", _run, "CompositeExplicitAutograd")
torch.library.register_fake("headrace::paged_attention", _shape, lib=_library)


def register_context(context: AttentionContext) -> int:
    """Give a context a handle. It is held weakly: it lives as long as its engine."""
    handle = next(_handles)
    _contexts[handle] = context
    return handle


def replace_context(handle: int, context: AttentionContext) -> None:
    """Let another context answer for a handle."""
    _contexts[handle] = context


def attention_function(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: [1, H, T, D], [1, K, T, D], [1, K, T, E] → ([1, T, H, E], None)."""
    tag: AttentionTag | None = getattr(module, "headrace_tag", None)
    if tag is None:
        raise RuntimeError(f"{type(module).__name__} is not part of a model that headrace has loaded")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if tag.layer is None:
        return tag.recorder.record(module, q, k, v, attention_mask, kwargs)[None], None
    out = torch.ops.headrace.paged_attention(q, k, v, kwargs.get("s_aux"), tag.handle, tag.layer)
    return out[None], None


def register_with_transformers() -> None:
    """Make the attention function known to transformers; harmless when repeated.

    No mask function is registered under the name, and for such names transformers makes no mask at all: the op masks
    by itself, from lengths.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION_NAME, attention_function)
