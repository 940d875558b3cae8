"""Logs of a server: to the console and to a rotating file, as text or as JSON lines.

::

    any thread ─► root logger ─► bounded queue ═ log thread ═► console
                                                          └──► file, 10 MB × 5

Whoever logs never waits for a disk or a terminal: records pass a queue, and when that is full, records are dropped and
counted. A handler that cannot write (no space left, a terminal that is gone) loses its line and nothing else.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from headrace.errors import ConfigError
from headrace.observability.log_formats import JsonFormatter, TextFormatter

MAX_FILE_BYTES = 10_000_000
NUM_OLD_FILES = 5
_MAX_QUEUED = 10_000


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What to log, and where to.

    Attributes:
        level: least level of headrace's own records; others' are logged from warning on.
        form: "text" or "json". file: besides the console; None: only there.
    """

    level: str = "info"
    form: str = "text"
    file: Path | None = None


def setup(plan: LogPlan, console: TextIO | None = None) -> Logs:
    """Send the records of all loggers where the plan says, until the result is closed.

    Args:
        plan: what and where.
        console: None is standard error.

    Raises:
        ConfigError: the file cannot be opened.
    """
    formatter = JsonFormatter() if plan.form == "json" else TextFormatter()
    handlers: list[logging.Handler] = [_Console(sys.stderr if console is None else console)]
    if plan.file is not None:
        try:
            handlers.append(_File(plan.file, maxBytes=MAX_FILE_BYTES, backupCount=NUM_OLD_FILES, encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"log_file={str(plan.file)!r} cannot be opened: {error}") from error
    for handler in handlers:
        handler.setFormatter(formatter)
    return Logs(plan.level, handlers)


class Logs:
    """Logging under way; `close` writes what is queued and puts the loggers back as they were."""

    def __init__(self, level: str, handlers: Sequence[logging.Handler]) -> None:
        """Start the log thread. Takes the place of the handlers that the root logger had."""
        self._handlers = handlers
        self._inbox = _Inbox(queue.Queue(_MAX_QUEUED))
        self._thread = threading.Thread(target=self._write, name="headrace-logs", daemon=True)
        self._root, self._own = logging.getLogger(), logging.getLogger("headrace")
        self._before = (self._root.handlers[:], self._root.level, self._own.level)
        self._root.handlers[:] = [self._inbox]
        self._root.setLevel(logging.WARNING)
        self._own.setLevel(level.upper())
        self._thread.start()

    @property
    def num_dropped(self) -> int:
        """Records that found the queue full."""
        return self._inbox.num_dropped

    def flush(self) -> None:
        """Wait until what was logged so far is written, or has failed to be."""
        self._inbox.records.join()

    def close(self) -> None:
        """Write what is queued, and put the loggers back."""
        self._root.handlers[:], self._root.level = self._before[0], self._before[1]
        self._own.setLevel(self._before[2])
        self._root.setLevel(self._before[1])
        self._inbox.records.put(None)
        self._thread.join()
        for handler in self._handlers:
            with suppress(OSError, ValueError):  # what is buffered may be what could not be written
                handler.close()

    def _write(self) -> None:
        records = self._inbox.records
        num_told = 0
        while (record := records.get()) is not None:
            if self.num_dropped > num_told:
                self._handle(_dropped(self.num_dropped - num_told))
                num_told = self.num_dropped
            self._handle(record)
            records.task_done()
        records.task_done()

    def _handle(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            handler.handle(record)


def _dropped(num: int) -> logging.LogRecord:
    message = "%d log lines were dropped: they came faster than they could be written"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (num,), None)


class _Inbox(logging.Handler):
    """Queues records; what they were made of is turned to text at once, as it may change later."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self.records = records
        self.num_dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.msg, record.args = record.getMessage(), None
        except Exception:  # arguments that do not fit their message
            record.msg, record.args = f"{record.msg!r} with {record.args!r}", None
        try:
            self.records.put_nowait(record)
        except queue.Full:
            self.num_dropped += 1


class _NeverDisturbs(logging.Handler):
    """A handler that cannot write says so once on standard error, not for every line, and goes on trying."""

    num_failed = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Count a line that is lost."""
        self.num_failed += 1
        if self.num_failed == 1:
            try:
                print(f"headrace: a log line cannot be written: {sys.exc_info()[1]!r}", file=sys.__stderr__)
            except (OSError, ValueError):
                return  # standard error is gone as well


class _Console(_NeverDisturbs, logging.StreamHandler[TextIO]):
    pass


class _File(_NeverDisturbs, logging.handlers.RotatingFileHandler):
    pass
