"""How the parent of a gateway's processes starts one."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from headrace.cli.replica_lines import replica_lines
from headrace.config import GatewayConfig, ServerConfig
from headrace.config.environment import child_environment
from headrace.gateway.child import Child
from headrace.gateway.processes.parent import Spawn

_THE_PARENTS = frozenset({"replicas", "replica_file", "processes", "log_file"})
"""The parent has them from the sources, starts them, and writes what they say."""


def write_settings(file: Path, server: ServerConfig, config: GatewayConfig, front: Iterable[str]) -> None:
    """Write what a process needs to know; `front` names what it needs of the server's settings."""
    names = {field.name for field in fields(GatewayConfig)} - _THE_PARENTS
    given = _given(server, set(front) - _THE_PARENTS) | _given(config, names)
    file.write_text(json.dumps(given), encoding="utf-8")


def _given(config: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those that are not at their defaults."""
    default = type(config)()
    return {name: value for name in names if (value := getattr(config, name)) != getattr(default, name)}


def spawner(file: Path, log_format: str, make_listener: Callable[[], socket.socket]) -> Spawn:
    """What starts a process: settings by a file, its sockets by their numbers."""
    tell, environment = replica_lines(log_format), child_environment(1)

    async def spawn(name: str, end: socket.socket) -> Child:
        listener = make_listener()
        try:
            descriptors = (end.fileno(), listener.fileno())
            command = [sys.executable, "-m", "headrace.cli.gateway_process", str(os.getpid())]
            command += [name, *map(str, descriptors), str(file)]
            return await Child.start(command, environment, lambda line: tell(name, line), descriptors)
        finally:
            listener.close()

    return spawn
