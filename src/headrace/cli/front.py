"""What `headrace gateway` and `headrace up` have in common: where the gateway listens, and who may ask."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from headrace.cli.open_files import allow_many_connections
from headrace.config import GatewayConfig, ServerConfig
from headrace.errors import AddressNotAvailable, ConfigError
from headrace.gateway.discovery import Source
from headrace.gateway.fleet import Fleet
from headrace.gateway.http.downstream import ClientLimits
from headrace.gateway.life import Front, GatewayLife, OwnReplicas
from headrace.gateway.pages import Guard, Supervisor
from headrace.observability.logs import LogPlan, setup
from headrace.server import exit_codes, listen
from headrace.server.auth import Authenticator

FRONT_SETTINGS = (
    "host", "port", "uds", "tls_certificate", "tls_key", "api_keys_file", "api_keys", "api_key", "jwt_secret",
    "jwt_public_key_file", "jwt_audience", "jwt_issuer", "jwt_leeway_s", "no_auth", "max_body_bytes", "drain_timeout_s",
    "log_level", "log_format", "log_file",
)  # fmt: skip
"""Settings of the server that are a gateway's too."""


class OwnFleet(OwnReplicas, Source, Supervisor, Protocol):
    """Replicas that live with the gateway: kept alive, listed, and administered.

    Attributes: fleet: that they are to be drained in.
    """

    fleet: Fleet | None


def run_front(
    server: ServerConfig, config: GatewayConfig, make_own: Callable[[], OwnFleet] | None, title: Callable[[str], str]
) -> int:
    """Pass requests on until a signal; returns the exit code.

    Args:
        server: where it listens and who may ask. config: of the gateway.
        make_own: replicas that live with it, made in the event loop.
        title: the last line of the start, for the address.
    """
    tls, guard = _tls(server), make_guard(server)
    try:
        listener = listen.bind(server)
    except AddressNotAvailable as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return exit_codes.ADDRESS_NOT_AVAILABLE
    logs = setup(LogPlan(server.log_level, server.log_format, Path(server.log_file) if server.log_file else None))
    url = listen.url(server, listener)

    def announce() -> None:
        logs.flush()  # so that the URL is the last line
        print(f"headrace: {title(url)}", file=sys.stderr, flush=True)

    async def serve() -> int:
        from headrace.gateway.assembly import assemble

        limits = ClientLimits(max_body_bytes=server.max_body_bytes)
        own = make_own() if make_own is not None else None
        sources: Mapping[str, Source] = {} if own is None else {"own": own}
        assembly = assemble(config, guard, limits, sources)
        if own is not None:
            assembly.pages.supervisor = own
            own.fleet = assembly.gateway.router.fleet
        return await GatewayLife(assembly, Front(listener, tls, server.drain_timeout_s), announce, own).run()

    import uvloop

    allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve())
    finally:
        listener.close()
        logs.close()


def make_guard(config: ServerConfig) -> Guard:
    """Who may ask, by the server's own rules. Raises ConfigError for keys that cannot be used."""
    authenticator = Authenticator(config)

    def check(credentials: Mapping[str, str], is_admin: bool) -> None:
        identity = authenticator.authenticate(credentials)
        if is_admin:
            identity.require_admin()

    return Guard(check, not config.has_credentials)


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
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
