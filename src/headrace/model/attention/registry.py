"""Attention implementations by name; a variant is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from headrace.errors import ConfigError

if TYPE_CHECKING:
    from headrace.model.attention.interface import AttentionImplementation

AUTO = "auto"


def _lazily(module: str, class_name: str) -> Callable[[], AttentionImplementation]:
    def make() -> AttentionImplementation:
        made: AttentionImplementation = getattr(import_module(module), class_name)()
        return made

    return make


_factories: dict[str, Callable[[], AttentionImplementation]] = {
    "torch": _lazily("headrace.model.attention.torch_paged", "TorchAttention"),
    "reference": _lazily("headrace.model.attention.reference", "ReferenceAttention"),
}


def available() -> list[str]:
    """Names that `get` knows, the preferred first; "auto" is the first of them."""
    return list(_factories)


def get(name: str = AUTO) -> AttentionImplementation:
    """Make the implementation called `name`. Raises ConfigError for an unknown name."""
    if name == AUTO:
        name = available()[0]
    if name not in _factories:
        raise ConfigError(f"attn_implementation={name!r} is not one of {', '.join([AUTO, *available()])}")
    return _factories[name]()


def register(name: str, factory: Callable[[], AttentionImplementation]) -> None:
    """Add an implementation of one's own. Raises ConfigError when the name is taken."""
    if name == AUTO or name in _factories:
        raise ConfigError(f"attention implementation {name!r} exists already; register yours under another name")
    _factories[name] = factory
