"""What `headrace gateway` and `headrace up` have in common: where the gateway listens, and who may ask."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headrace.cli.open_files import allow_many_connections
from headrace.config import GatewayConfig, ServerConfig
from headrace.errors import AddressNotAvailable, ConfigError
from headrace.gateway.discovery import Source
from headrace.gateway.fleet import Fleet
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.life import Front, GatewayLife, Kept
from headrace.gateway.pages import Guard, Supervisor
from headrace.observability.logs import LogPlan, setup
from headrace.server import exit_codes, listen
from headrace.server.auth import Authenticator

if TYPE_CHECKING:
    from headrace.gateway.assembly import Assembly
    from headrace.gateway.processes.parent import Processes

FRONT_SETTINGS = (
    "host", "port", "uds", "tls_certificate", "tls_key", "api_keys_file", "api_keys", "api_key", "jwt_secret",
    "jwt_public_key_file", "jwt_audience", "jwt_issuer", "jwt_leeway_s", "no_auth", "max_body_bytes", "drain_timeout_s",
    "log_level", "log_format", "log_file",
)  # fmt: skip
"""Settings of the server that are a gateway's too."""


class OwnFleet(Kept, Source, Supervisor, Protocol):
    """Replicas that live with the gateway: kept alive, listed, and administered.

    Attributes: fleet: that they are to be drained in. settle: until all who choose from it know that.
    """

    fleet: Fleet | None
    settle: Callable[[], Awaitable[None]]


def run_front(
    server: ServerConfig, config: GatewayConfig, make_own: Callable[[], OwnFleet] | None, title: Callable[[str], str]
) -> int:
    """Pass requests on until a signal; returns the exit code.

    Args:
        server: where it listens and who may ask. config: of the gateway.
        make_own: replicas that live with it, made in the event loop.
        title: the last line of the start, for the address.
    """
    tls, guard = tls_of(server), make_guard(server)
    is_shared = config.processes > 1 and server.uds is None
    try:
        listener = listen.bind(server)
        if is_shared:  # nobody else has the port; now it is taken so that it can be shared
            port = listener.getsockname()[1]
            listener.close()
            listener = listen.bind_shared(server, port)
    except AddressNotAvailable as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return exit_codes.ADDRESS_NOT_AVAILABLE
    logs = setup(LogPlan(server.log_level, server.log_format, Path(server.log_file) if server.log_file else None))
    url = listen.url(server, listener)

    def announce() -> None:
        logs.flush()  # so that the URL is the last line
        print(f"headrace: {title(url)}", file=sys.stderr, flush=True)

    def make_listener() -> socket.socket:
        return listen.bind_shared(server, listener.getsockname()[1]) if is_shared else listener.dup()

    async def serve(folder: Path) -> int:
        from headrace.gateway.assembly import assemble

        own = make_own() if make_own is not None else None
        sources: Mapping[str, Source] = {} if own is None else {"own": own}
        limits, front = limits_of(server), Front(listener, tls, server.drain_timeout_s)
        if config.processes == 1:
            assembly, processes = assemble(config, guard, limits, sources), None
        else:
            assembly, processes = _in_processes(server, config, guard, sources, folder, make_listener)
        if own is not None:
            assembly.pages.supervisor = own
            own.fleet = assembly.gateway.router.fleet
            if processes is not None:
                own.settle = processes.settle
        return await GatewayLife(assembly, front, announce, own, processes).run()

    import uvloop

    allow_many_connections()
    try:
        with (
            # Only this user may enter it: it holds what processes are told, secrets included.
            tempfile.TemporaryDirectory(prefix="headrace-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(serve(Path(folder)))
    finally:
        listener.close()
        logs.close()


def _in_processes(
    server: ServerConfig,
    config: GatewayConfig,
    guard: Guard,
    sources: Mapping[str, Source],
    folder: Path,
    make_listener: Callable[[], socket.socket],
) -> tuple[Assembly, Processes]:
    """The parent's part, and the processes that pass requests on."""
    from headrace.cli.front_processes import spawner, write_settings
    from headrace.gateway.assembly import assemble
    from headrace.gateway.processes.parent import Processes
    from headrace.gateway.processes.parent_pages import ParentPages

    # Processes that are started later begin with what is known of the caches.
    config = replace(config, index_file=config.index_file or str(folder / "index"))
    write_settings(folder / "process.yaml", server, config, FRONT_SETTINGS)
    assembly = assemble(config, guard, limits_of(server), sources, page_kind=ParentPages)
    spawn = spawner(folder / "process.yaml", server.log_format, make_listener)
    processes = Processes(assembly, spawn, config.processes, server.drain_timeout_s)
    assert isinstance(assembly.pages, ParentPages)
    assembly.pages.processes = processes
    return assembly, processes


def limits_of(server: ServerConfig) -> ClientLimits:
    """Of clients' connections."""
    return ClientLimits(max_body_bytes=server.max_body_bytes)


def make_guard(config: ServerConfig) -> Guard:
    """Who may ask, by the server's own rules. Raises ConfigError for keys that cannot be used."""
    authenticator = Authenticator(config)

    def check(credentials: Mapping[str, str], is_admin: bool) -> None:
        identity = authenticator.authenticate(credentials)
        if is_admin:
            identity.require_admin()

    return Guard(check, not config.has_credentials)


def tls_of(config: ServerConfig) -> ssl.SSLContext | None:
    """For https, if that is asked for. Raises ConfigError for files that cannot be used."""
    if config.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"tls_certificate={config.tls_certificate!r} with tls_key={config.tls_key!r} cannot be used: {error}"
        ) from error
    return context
