"""uvicorn, run from within: on a socket that is bound already, with signals and logs left to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from headrace.config.server import ServerConfig
from headrace.errors import ConfigError
from headrace.server.http_protocol import GuardedHttpProtocol
from headrace.server.listen import BACKLOG


class HttpServer(uvicorn.Server):
    """A server that leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs it decides what a signal means."""
        yield


def http_server(app: Any, config: ServerConfig, keep_alive_s: int, last_bytes_s: int) -> HttpServer:
    """A server of the application.

    Args:
        app: of ASGI. config: for TLS. keep_alive_s: how long an idle connection stays open.
        last_bytes_s: how long connections get for their last bytes when it ends.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    options = uvicorn.Config(
        app,
        http=GuardedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        interface="asgi3",
        backlog=BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=last_bytes_s,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
    try:
        options.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"tls_certificate={config.tls_certificate!r} with tls_key={config.tls_key!r} cannot be used: {error}"
        ) from error
    return HttpServer(options)
