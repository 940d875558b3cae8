"""Attention implementations by name; a variant is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from headrace.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from headrace.model.attention.interface import AttentionImplementation, LayerSpec

AUTO = "auto"
_BY_NAME_ONLY = {"cpu": frozenset({"triton"})}
"""Where "auto" does not look: on the CPU Triton is an interpreter, for tests."""


def _lazily(module: str, class_name: str) -> Callable[[], AttentionImplementation]:
    def make() -> AttentionImplementation:
        made: AttentionImplementation = getattr(import_module(module), class_name)()
        return made

    return make


_factories: dict[str, Callable[[], AttentionImplementation]] = {
    "cpu": _lazily("headrace.model.attention.cpu", "CpuAttention"),
    "triton": _lazily("headrace.model.attention.triton_paged", "TritonAttention"),
    "torch": _lazily("headrace.model.attention.torch_paged", "TorchAttention"),
    "reference": _lazily("headrace.model.attention.reference", "ReferenceAttention"),
}


def available() -> list[str]:
    """Names that `get` knows, the preferred first."""
    return list(_factories)


def choose(name: str, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> AttentionImplementation:
    """The implementation called `name`; "auto" is the first that serves all `layers`.

    Raises ConfigError for an unknown name, or for one that does not serve them.
    """
    hidden: frozenset[str] = _BY_NAME_ONLY.get(device.type, frozenset())
    names = [known for known in available() if known not in hidden] if name == AUTO else [name]
    reasons = []
    for candidate in names:
        try:
            implementation = get(candidate)
        except ConfigError as error:  # not built here
            if name != AUTO:
                raise
            reasons.append(str(error))
            continue
        reason = implementation.refusal(layers, dtype, device)
        if reason is None:
            return implementation
        reasons.append(f"{candidate}: {reason}")
    raise ConfigError(f"attn_implementation={name!r} does not serve this model here: {'; '.join(reasons)}")


def get(name: str) -> AttentionImplementation:
    """Make the implementation called `name`. Raises ConfigError for an unknown name, or for what was not built here."""
    if name not in _factories:
        raise ConfigError(f"attn_implementation={name!r} is not one of {', '.join([AUTO, *available()])}")
    return _factories[name]()


def register(name: str, factory: Callable[[], AttentionImplementation]) -> None:
    """Add an implementation of one's own. Raises ConfigError when the name is taken."""
    if name == AUTO or name in _factories:
        raise ConfigError(f"attention implementation {name!r} exists already; register yours under another name")
    _factories[name] = factory
