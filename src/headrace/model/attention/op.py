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
from typing import Any

import torch
from torch import nn

from headrace.model.attention.context import PagedContext

IMPLEMENTATION_NAME = "headrace"
"""The name under which transformers knows this attention."""


class AttentionTag:
    """What `attention_function` finds on an attention module: whose cache it uses and which layers its calls are.

    Attributes:
        handle: number of the context. layers: of its calls within one forward pass, in order.
        next_call: place in `layers` of the call that comes next; reset before every pass when there are several.
    """

    __slots__ = ("handle", "layers", "next_call")

    def __init__(self, handle: int) -> None:
        """Without layers yet."""
        self.handle = handle
        self.layers: list[int] = []
        self.next_call = 0

    def layer(self) -> int:
        """The layer of the call that is being made."""
        if len(self.layers) == 1:
            return self.layers[0]
        self.next_call += 1
        return self.layers[self.next_call - 1]


_contexts: weakref.WeakValueDictionary[int, PagedContext] = weakref.WeakValueDictionary()
_handles = itertools.count()
_library: Any = torch.library.Library("headrace", "DEF")  # type: ignore[no-untyped-call]  # torch has no types here
_library.define("paged_attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, int context, int layer) -> Tensor")


def _run(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor | None, context: int, layer: int
) -> torch.Tensor:
    return _contexts[context].attend(q, k, v, sinks, layer)


def _shape(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, sinks: torch.Tensor | None, context: int, layer: int
) -> torch.Tensor:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[2])


_library.impl("paged_attention", _run, "CompositeExplicitAutograd")
torch.library.register_fake("headrace::paged_attention", _shape, lib=_library)


def register_context(context: PagedContext) -> int:
    """Give a context a handle. It is held weakly: it lives as long as its engine."""
    handle = next(_handles)
    _contexts[handle] = context
    return handle


def attention_function(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention interface: [1, H, T, D], [1, K, T, D], [1, K, T, E] → ([1, T, H, E], None).

    What the options say of scale, window and soft cap was recorded when the model was loaded.
    """
    tag: Any = module.headrace_tag
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    out = torch.ops.headrace.paged_attention(q, k, v, options.get("s_aux"), tag.handle, tag.layer())
    return out[None], None


def register_with_transformers() -> None:
    """Make the attention function known to transformers; harmless when repeated.

    No mask function is registered under the name, and for such names transformers makes no mask at all: the op masks
    by itself, from lengths.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION_NAME, attention_function)
