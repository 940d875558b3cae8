"""A file that lists replicas, read again when it changes.

TOML or YAML by its name, `replicas` being addresses or tables, or plain text with an address a line::

    replicas = ["http://10.0.0.5:8000", { url = "http://10.0.0.6:8000", name = "big", weight = 2 }]
"""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from headrace.errors import ConfigError
from headrace.gateway.discovery.source import parse_endpoint
from headrace.gateway.replica import Endpoint

_log = logging.getLogger(__name__)


class FileSource:
    """Args: path: of the file. poll_s: seconds between two looks at it."""

    def __init__(self, path: Path, poll_s: float = 0.5) -> None:
        """Not read yet."""
        self._path = path
        self._poll_s = poll_s

    async def sets(self) -> AsyncIterator[tuple[Endpoint, ...]]:
        """After each change that can be read; one that cannot is logged once, and the last good set stays."""
        seen: Any = None
        while True:
            try:
                status = self._path.stat()
                mark: Any = (status.st_mtime_ns, status.st_size, status.st_ino)
                if mark != seen:
                    yield read_replica_file(self._path)
            except (OSError, ConfigError) as error:
                mark = str(error)
                if mark != seen:
                    _log.error("the replica file cannot be used, the last good set stays: %s", error)
            seen = mark
            await asyncio.sleep(self._poll_s)


def read_replica_file(path: Path) -> tuple[Endpoint, ...]:
    """The endpoints in a file. Raises OSError, and ConfigError that names the file and what is wrong in it."""
    try:
        endpoints = tuple(map(parse_endpoint, _listed(path)))
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    names = [endpoint.name for endpoint in endpoints]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: {', '.join(twice)} is listed twice; replicas have names of their own")
    return endpoints


def _listed(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        table: Any = tomllib.loads(text)
    elif path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            table = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(" ".join(str(error).split())) from error
    else:
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        found = [line for line in lines if line]
        if not found:  # a file that is being written is empty for a moment
            raise ConfigError("it lists no replica; an empty list can be said in TOML: replicas = []")
        return found
    if not isinstance(table, dict) or not isinstance(table.get("replicas"), list) or len(table) > 1:
        raise ConfigError("it needs one list `replicas` of addresses or tables, and nothing else")
    return list(table["replicas"])
