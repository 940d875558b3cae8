"""The child's log on its standard error, one record a line, and back into records of the parent's log."""

from __future__ import annotations

import logging
import re

_LINE = re.compile(r"^\x1e(\d+) (\S+) (.*)$", re.DOTALL)
_NEWLINE = "\x1f"


class ChildFormatter(logging.Formatter):
    """Level, logger and message (with its traceback) in one line; a mark tells it from what others print."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return f"\x1e{record.levelno} {record.name} " + super().format(record).replace("\n", _NEWLINE)


def parse(line: str, otherwise: str) -> tuple[str, int, str]:
    """Logger, level and message of a line; what is no record (a crash, a print) is a warning of `otherwise`."""
    found = _LINE.match(line)
    if found is None:
        return otherwise, logging.WARNING, line
    return found[2], int(found[1]), found[3].replace(_NEWLINE, "\n")
