"""Remembers which attention a model used before headrace, to give the model back as it was."""

from __future__ import annotations

from typing import Any


class OwnAttention:
    """The attention implementation of each part of a model.

    One name is not enough: in a composite model the vision tower may run on "eager" and the text on "sdpa".
    """

    def __init__(self, model: Any) -> None:
        """Note what is set now, in every configuration that a module of the model reads."""
        configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
        self._names = [
            (config, config._attn_implementation)
            for config in configs.values()
            if hasattr(config, "_attn_implementation")
        ]

    def restore(self) -> None:
        """Set it again."""
        for config, name in self._names:
            # Not through the property of the same name: that one also sets every configuration inside.
            config._attn_implementation_internal = name
