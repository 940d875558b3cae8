"""Errors between processes: the class by its name, the message, what it carries, and its cause as text."""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

from headrace import errors
from headrace.errors import EngineDead, HeadraceError


class ErrorReport(msgspec.Struct, frozen=True, array_like=True):
    """An error that can be sent.

    Attributes:
        kind: name of the class in headrace.errors. message: str() of it.
        attributes: what it carries beside, as plain values. cause: "ValueError: …" of what it came from.
        traceback: of it and its causes, for the log.
    """

    kind: str
    message: str
    attributes: dict[str, Any] = {}
    cause: str | None = None
    traceback: str | None = None


class RemoteCause(Exception):
    """What an error of another process came from, in words; `traceback` is that process's."""

    def __init__(self, words: str, traceback: str | None) -> None:
        """Both as text."""
        super().__init__(words)
        self.traceback = traceback


def report(error: HeadraceError, with_traceback: bool = False) -> ErrorReport:
    """An error as it is sent; the traceback goes along when there is a cause, or on demand."""
    cause, words = error.__cause__, None
    if cause is not None:
        words = str(cause) if isinstance(cause, RemoteCause) else f"{type(cause).__name__}: {cause}"
    plain = {name: value if isinstance(value, str | int | float | None) else repr(value)
             for name, value in vars(error).items() if not name.startswith("_")}  # fmt: skip
    lines = traceback.format_exception(error) if with_traceback or cause is not None else None
    return ErrorReport(type(error).__name__, str(error), plain, words, None if lines is None else "".join(lines))


def last_report(error: BaseException, doing: str) -> ErrorReport:
    """Of an error of any class that ends the process: what is not headrace's own becomes an EngineDead."""
    if isinstance(error, HeadraceError):
        return report(error, with_traceback=True)
    dead = EngineDead(f"{doing}: {type(error).__name__}: {error}")
    dead.__cause__ = error
    return report(dead)


def rebuilt(sent: ErrorReport) -> HeadraceError:
    """The error, of its own class, with its message and attributes; `__cause__` holds the rest as text."""
    kind = getattr(errors, sent.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, HeadraceError)):
        kind = HeadraceError
    # Not through __init__: some classes make their message from parts.
    error: HeadraceError = kind.__new__(kind, sent.message)
    error.__dict__.update(sent.attributes)
    if sent.cause is not None or sent.traceback is not None:
        error.__cause__ = RemoteCause(sent.cause or sent.message, sent.traceback)
    return error
