"""Sockets to listen on, bound before anything is loaded: a port that is taken is said at once."""

from __future__ import annotations

import errno
import os
import socket
import stat

from headrace.config.server import ServerConfig
from headrace.errors import AddressNotAvailable

BACKLOG = 2048


def bind(config: ServerConfig) -> socket.socket:
    """A bound socket for what the settings name; not listening yet, so that a second server is refused already.

    Raises:
        AddressNotAvailable: taken, not permitted, or no address of this machine.
    """
    return _bind_unix(config.uds) if config.uds is not None else _bind_tcp(config.host, config.port)


def bind_shared(config: ServerConfig, port: int) -> socket.socket:
    """One of several sockets that have a TCP port in common; the system divides the clients among those that listen.

    It does not listen yet: until it does, it only keeps the port. Raises AddressNotAvailable.
    """
    return _bind_tcp(config.host, port, is_shared=True)


def url(config: ServerConfig, listener: socket.socket) -> str:
    """What a client connects to."""
    scheme = "https" if config.tls_certificate else "http"
    if config.uds is not None:
        return f"{scheme}+unix://{config.uds}"
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def _bind_tcp(host: str, port: int, is_shared: bool = False) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise AddressNotAvailable(f"host={host!r} is no address: {error}; 127.0.0.1 is this machine alone") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Else a port stays taken for a minute after a server with open connections has ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if not is_shared:
            listener.listen(BACKLOG)  # now, because two sockets that only bind may share a port
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressNotAvailable(_reason(f"{host}:{port}", error)) from error
    return listener


def _bind_unix(path: str) -> socket.socket:
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        raise AddressNotAvailable(f"uds={path!r} is a file or folder, and no socket: take another path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressNotAvailable(_reason(path, error)) from error
    return listener


def _is_abandoned(path: str) -> bool:
    """Whether a socket file is there that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _reason(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is taken by another process: stop it, or take another (--port 0 takes a free one)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine; 127.0.0.1 is this machine alone, 0.0.0.0 all of its addresses"
    if error.errno == errno.EACCES:
        return f"{address} may not be listened on by this user; ports from 1024 on may"
    return f"{address} cannot be listened on: {error.strerror or error}"
