"""Where a module's call carries the hidden states, and where the cosines and sines of its positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headrace.model.surgery.watch import Call

_FAR = 1 << 20
"""A position beyond every model's length."""


@dataclass(frozen=True, slots=True)
class Place:
    """An argument: by position, or by name."""

    key: int | str

    def take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Its value in a call."""
        return args[self.key] if isinstance(self.key, int) else kwargs[self.key]

    def put(self, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with another value."""
        if isinstance(self.key, int):
            return (*args[: self.key], value, *args[self.key + 1 :]), kwargs
        return args, {**kwargs, self.key: value}


@dataclass(frozen=True, slots=True)
class Angles:
    """An argument that is a pair of tensors [1, T, R], cos and sin."""

    place: Place

    def take(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and sin, [T, R]."""
        cos, sin = self.place.take(args, kwargs)
        return cos[0], sin[0]


def _all(call: Call) -> list[tuple[Place, Any]]:
    named = [(Place(name), value) for name, value in call.kwargs.items()]
    return [(Place(i), value) for i, value in enumerate(call.args)] + named


def is_closed(call: Call, hidden: Place, angles: Angles | None) -> bool:
    """Whether hidden states and angles are all the numbers that a call carries."""
    known = (hidden, angles.place if angles else hidden)
    others = [value for place, value in _all(call) if place not in known]
    nested = [item for value in others if isinstance(value, tuple | list) for item in value]
    return not any(isinstance(v, torch.Tensor) and v.is_floating_point() for v in (*others, *nested))


def far_away(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call at positions beyond every training length: what depends on positions by itself shows there."""

    def moved(value: Any) -> Any:
        is_positions = isinstance(value, torch.Tensor) and value.dtype == torch.int64
        return value + _FAR if is_positions else value

    return tuple(map(moved, call.args)), {name: moved(value) for name, value in call.kwargs.items()}


def find_hidden(call: Call, inputs: Sequence[torch.Tensor]) -> Place | None:
    """The argument [1, T, N] that is the input of one of the module's first products."""
    for place, value in _all(call):
        if isinstance(value, torch.Tensor) and value.dim() == 3 and any(value is x for x in inputs):
            return place
    return None


def find_angles(call: Call) -> Angles | None:
    """The argument that is cos and sin of every token."""
    values = [value for _, value in _all(call) if isinstance(value, torch.Tensor) and value.is_floating_point()]
    steps = {value.shape[:2] for value in values}
    for place, value in _all(call):
        if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, torch.Tensor) for v in value):
            cos, sin = value
            alike = cos.shape == sin.shape and cos.dtype == sin.dtype and cos.stride() == sin.stride()
            if alike and cos.is_floating_point() and cos.dim() == 3 and cos.stride(2) == 1 and cos.shape[:2] in steps:
                return Angles(place)
    return None
