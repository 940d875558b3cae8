"""Which paths are the gateway's own."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from headrace.gateway.http.messages import Request

_OWN = frozenset({b"/metrics", b"/version", b"/v1/models"})
_MOST_KNOWN = 256
"""Targets that are remembered, and the length of one: clients make them up."""


class OwnPaths:
    """Health, metrics, models, version and administration; everything else is a replica's."""

    def __init__(self) -> None:
        """No target was seen."""
        self._known: dict[bytes, bool] = {}

    def __contains__(self, request: Request) -> bool:
        """Whether the gateway answers it itself."""
        known = self._known.get(request.target)
        if known is None:
            known = _is_own(request.path)
            if len(self._known) < _MOST_KNOWN and len(request.target) < _MOST_KNOWN:
                self._known[request.target] = known
        return known


def _is_own(path: bytes) -> bool:
    if b"%" in path:  # a replica would undo that, and must not see what is not meant for it
        path = unquote_to_bytes(path)
    return path in _OWN or path.startswith((b"/health", b"/admin"))


def name_in(path: str, pattern: str) -> str | None:
    """The name in a path of the pattern's form, "" for a pattern without one; None when it has another form."""
    before, braces, after = pattern.partition("{name}")
    if not braces:
        return "" if path == pattern else None
    name = path[len(before) : len(path) - len(after)] if after else path[len(before) :]
    return name if path.startswith(before) and path.endswith(after) and name and "/" not in name else None
