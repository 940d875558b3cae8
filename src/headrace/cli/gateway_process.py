"""`python -m headrace.cli.gateway_process PID NAME SOCKET SOCKET FILE`: a process of the gateway of process PID.

The sockets are file descriptors: one end of the connection with the parent, and where clients come in.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from headrace.cli.front import limits_of, make_guard, tls_of
from headrace.cli.open_files import allow_many_connections
from headrace.config import GatewayConfig, ServerConfig
from headrace.config.sources import merge
from headrace.engine.remote.lifeline import die_with_parent
from headrace.errors import ConfigError
from headrace.gateway.assembly import assemble
from headrace.gateway.life import Front, GatewayLife
from headrace.gateway.processes.worker import Worker, WorkerPages
from headrace.observability.logs import LogPlan, setup

_CANNOT_BE = 2


def run(name: str, end: socket.socket, listener: socket.socket, file: Path) -> int:
    """Pass requests on until the parent says otherwise; returns the exit code."""
    settings = merge((ServerConfig, GatewayConfig), file=file)
    server, config = settings.server, settings.gateway
    tls, guard = tls_of(server), make_guard(server)
    logs = setup(LogPlan(server.log_level, server.log_format, None))

    def announce() -> None:
        logs.flush()
        print(f"headrace: serving requests at http://{name}", file=sys.stderr, flush=True)

    async def serve() -> int:
        assembly = assemble(config, guard, limits_of(server), page_kind=WorkerPages, is_worker=True)
        front = Front(listener, tls, server.drain_timeout_s)
        return await GatewayLife(assembly, front, announce, Worker(assembly, end)).run()

    import uvloop

    allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        logs.close()


def main(arguments: list[str]) -> int:
    """Read the command line."""
    parent_pid, name, end, listener, file = arguments
    die_with_parent(int(parent_pid))
    try:
        return run(name, socket.socket(fileno=int(end)), socket.socket(fileno=int(listener)), Path(file))
    except ConfigError as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return _CANNOT_BE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
