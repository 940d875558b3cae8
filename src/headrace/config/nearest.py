"""The name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`."""
    from difflib import get_close_matches  # costs 2 ms to import, for an error only

    return get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
