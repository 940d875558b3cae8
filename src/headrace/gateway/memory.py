"""What the gateway remembers across a restart: which replica was sent which prefix.

One file, written whole and put in place at once: a line of JSON with the replicas' names and counts, then their hashes
as 64-bit numbers. A replica that restarted meanwhile has forgotten: its entries cost it some prefills and go by
themselves.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from array import array
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from headrace.gateway.fleet import Fleet
from headrace.gateway.prefix_index import PrefixIndex

_log = logging.getLogger(__name__)
_FORMAT = 2
_MOST_ABSENT = 64
"""Replicas that have not come back and are remembered all the same; the newest of them are kept."""


def save(path: Path, fleet: Fleet, index: PrefixIndex, absent: Mapping[str, array[int]] = MappingProxyType({})) -> None:
    """Write the file; `absent` is what is known of replicas that have not come back. Raises OSError."""
    parts = []
    counts: dict[str, int] = {}
    for replica in fleet:
        hashes = array("Q", index.hashes(replica.number))
        counts[f"{replica.name} {replica.endpoint.url}"] = len(hashes)
        parts.append(hashes.tobytes())
    for name, hashes in absent.items():
        counts[name] = len(hashes)
        parts.append(hashes.tobytes())
    head = {"format": _FORMAT, "byteorder": sys.byteorder, "replicas": counts}
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        scratch.write_bytes(json.dumps(head).encode() + b"\n" + b"".join(parts))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def load(path: Path) -> dict[str, array[int]]:
    """Hashes by "name url" of the replica; empty when there is no file, or none that can be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        _log.warning("what was known of the replicas' caches cannot be read: %s", error)
        return {}
    line, _, rest = data.partition(b"\n")
    found: dict[str, array[int]] = {}
    try:
        head = json.loads(line)
        if head["format"] != _FORMAT or head["byteorder"] != sys.byteorder:
            return {}
        for name, count in head["replicas"].items():
            found[name] = array("Q", rest[: 8 * count])
            if len(found[name]) != count:
                raise ValueError("it is cut short")
            rest = rest[8 * count :]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        _log.warning("%s does not hold what was known of the replicas' caches: %s", path, error)
        return {}
    return found


class Memory:
    """Gives replicas that come what was known of them, once.

    Args:
        path: of the file. is_kept: whether what is known is written to it too.
    """

    def __init__(self, path: Path, is_kept: bool = True) -> None:
        """Read what there is."""
        self._path = path
        self._is_kept = is_kept
        self._known = load(path)

    def recall(self, fleet: Fleet, index: PrefixIndex) -> None:
        """Fill in the replicas that are known and here; to be called when the fleet changes."""
        for replica in fleet:
            hashes = self._known.pop(f"{replica.name} {replica.endpoint.url}", None)
            if hashes is not None:
                index.record(hashes, replica.number)

    def keep(self, fleet: Fleet, index: PrefixIndex) -> None:
        """Write what is known now; a disk that is full is said and changes nothing else."""
        if not self._is_kept:
            return
        try:
            save(self._path, fleet, index, dict(islice(self._known.items(), _MOST_ABSENT)))
        except OSError as error:
            _log.warning("what is known of the replicas' caches cannot be kept: %s", error)
