"""Says what it is about a refused model that a paged cache cannot follow."""

from __future__ import annotations

import inspect
from typing import Any

from headrace.errors import ModelNotSupported

_FOLLOWED = frozenset({"full_attention", "sliding_attention", "chunked_attention", "moe", "mlp"})
"""Kinds of layers, in transformers' words, that keep keys and values of each token, or nothing."""


def refusal(model: Any, found: str) -> ModelNotSupported:
    """The error for a model: its class, what was found, and the likely reason for it where transformers tells one."""
    reason = _reason(model)
    return ModelNotSupported(f"{type(model).__name__}: {found}{'; ' * bool(reason)}{reason}")


def _reason(model: Any) -> str:
    """Only for models that were refused: many classes have layers that cannot be paged in some checkpoints alone."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None) or ()
    others = sorted(set(kinds) - _FOLLOWED)
    if others:
        return f"its {' and '.join(others)} layers keep more than a key and a value of each token"
    if getattr(model, "_is_stateful", False):
        return "it carries a recurrent state from token to token (state space, linear attention)"
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "it takes no position_ids: it counts positions from the start of a step, whosever tokens are there"
    return ""
