"""The lines of replicas among the gateway's own: each with the name of its replica."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


def replica_lines(log_format: str) -> Callable[[str, str], None]:
    """What shows a line of a replica: given the replica's name and the line, which the replica has formatted itself."""
    mark = _in_json if log_format == "json" else _in_text

    def show(name: str, line: str) -> None:
        # Handled at once, whatever the level: the replica has left out what is below it.
        record = _log.makeRecord(_log.name, logging.INFO, __file__, 0, mark(name, line), (), None)
        record.verbatim = True
        _log.handle(record)

    return show


def _in_text(name: str, line: str) -> str:
    return f"[{name}] {line}"


def _in_json(name: str, line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        fields = None
    return json.dumps({"replica": name, **(fields if isinstance(fields, dict) else {"message": line})})
