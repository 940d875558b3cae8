"""Compiles a model's decoder layers with torch.compile, each as a region of its own.

All layers of one kind share their compiled code, so compiling takes seconds where a whole model takes a minute or more
(PyTorch, "Reducing torch.compile cold start compilation time with regional compilation").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from headrace.errors import ConfigError

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
"""Modes of torch.compile that `compile_mode` may name."""


def compile_layers(model: nn.Module, attention_modules: Iterable[nn.Module], mode: str, dynamic: bool) -> list[Any]:
    """Compile the list members that hold the given attention modules; returns them, for `forget_compiled`.

    Args:
        model: holds them. attention_modules: those that headrace has wired.
        mode: of torch.compile. dynamic: one code for all step sizes; otherwise one is compiled per size.

    Raises:
        ConfigError: the mode is unknown, or the model keeps its layers in no list.
    """
    if mode not in COMPILE_MODES:
        raise ConfigError(f"compile_mode={mode!r} is not one of {', '.join(COMPILE_MODES)}")
    wired = set(attention_modules)
    members = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    layers: list[Any] = [member for member in members if wired & set(member.modules())]
    if not layers:
        raise ConfigError(f"{type(model).__name__} keeps its layers in no ModuleList; compile_mode needs one")
    for layer in layers:
        layer.compile(mode=mode, dynamic=dynamic)
    return layers


def forget_compiled(layers: Iterable[Any]) -> None:
    """Let the layers run their own code again."""
    for layer in layers:
        layer._compiled_call_impl = None
