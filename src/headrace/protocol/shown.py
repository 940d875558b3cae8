"""A JSON value in a few characters, for messages."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

_MAX_TEXT = 60
_MAX_ITEMS = 3
_MAX_DEPTH = 2
_MAX_DIGITS = 10**40


def shown(value: Any, depth: int = _MAX_DEPTH) -> str:
    """The value as JSON, with … for what is left out; at most a few hundred characters, whatever is given."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        if depth == 0:
            return "{…}" if value else "{}"
        items = [f"{_text(str(key))}: {shown(item, depth - 1)}" for key, item in islice(value.items(), _MAX_ITEMS)]
        return "{" + ", ".join([*items, *["…"] * (len(value) > _MAX_ITEMS)]) + "}"
    if isinstance(value, list | tuple):
        if depth == 0:
            return "[…]" if value else "[]"
        items = [shown(item, depth - 1) for item in value[:_MAX_ITEMS]]
        more = [f"… {len(value)} items"] * (len(value) > _MAX_ITEMS)
        return "[" + ", ".join([*items, *more]) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < _MAX_DIGITS else "an integer of more than 40 digits"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, float) else type(value).__name__


def _text(text: str) -> str:
    cut = text[:_MAX_TEXT] + "…" * (len(text) > _MAX_TEXT)
    return msgspec.json.encode(cut.encode("utf-8", "replace").decode()).decode()
