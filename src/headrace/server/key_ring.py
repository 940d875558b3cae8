"""The API keys that are valid now: those of the settings, and those of a file, which is read again when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from headrace.errors import ConfigError
from headrace.server.keys import KeyEntry, check_unique, read_keys_file

_log = logging.getLogger(__name__)

_PREFIX_BYTES = 8
_LOOK_S = 1.0


class KeyRing:
    """Entries by digest. Used by one event loop.

    A key that is added or taken out of the file is known or refused after a second at most. A file that cannot be used
    is logged once, and the keys stay as they were: half of a file that is being written must lock nobody out.

    Args:
        fixed: entries that stay. file: of further ones. clock: seconds, monotonic.
    """

    def __init__(self, fixed: Iterable[KeyEntry], file: Path | None, clock: Callable[[], float]) -> None:
        """Read the file. Raises ConfigError for one that cannot be used, and for names that are there twice."""
        self._fixed = tuple(fixed)
        self._file = file
        self._clock = clock
        self._looked_s = clock()
        self._mark = self._seen()
        self._entries = self._read()

    def find(self, digest: bytes) -> KeyEntry | None:
        """The entry that may be of this digest; it is to be compared whole, in constant time.

        What can be timed is a part of a hash, which leads nobody to a key.
        """
        if self._file is not None and self._clock() - self._looked_s >= _LOOK_S:
            self._look()
        return self._entries.get(digest[:_PREFIX_BYTES])

    def _look(self) -> None:
        self._looked_s = self._clock()
        mark = self._seen()
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._entries = self._read()
        except ConfigError as error:
            _log.error("the API keys stay as they were: %s", error)
        else:
            _log.info("%s has changed: there are %d API keys now", self._file, len(self._entries))

    def _read(self) -> dict[bytes, KeyEntry]:
        entries = [*self._fixed, *(read_keys_file(self._file) if self._file is not None else ())]
        check_unique(entries)
        return {entry.digest[:_PREFIX_BYTES]: entry for entry in entries}

    def _seen(self) -> tuple[int, ...]:
        """What changes when the file does; empty when it is not there."""
        try:
            status = self._file.stat() if self._file is not None else None
        except OSError:
            return ()
        return () if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
