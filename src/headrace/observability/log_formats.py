"""How a log record looks: aligned text for people, or one JSON object a line.

A record's own fields come as `extra={"fields": {...}}`. What clients choose (model names, request ids) may hold line
breaks and terminal codes: they are escaped in both forms.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any


class TextFormatter(logging.Formatter):
    """`12:00:01.123 INFO    server   message  name=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and under it the traceback if there is one."""
        if _is_verbatim(record):
            return _printable(record.getMessage())
        clock = f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"
        name = record.name.removeprefix("headrace.").rpartition(".")[2]
        words = [f"{clock} {record.levelname:<7} {name:<8} {_printable(record.getMessage())}"]
        words += [f"{key}={_printable(str(value))}" for key, value in _fields(record).items() if value is not None]
        lines = ["  ".join((words[0], " ".join(words[1:]))) if len(words) > 1 else words[0]]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """`{"time": "2026-01-31T12:00:01.123Z", "level": "info", "logger": …, "message": …, further fields}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        if _is_verbatim(record):
            return record.getMessage()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _is_verbatim(record: logging.LogRecord) -> bool:
    """Whether the message is a line of another process, which has its form already."""
    return bool(getattr(record, "verbatim", False))


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _printable(text: str) -> str:
    """The text without what would break a line or command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
