"""Who may ask a gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from headrace.gateway.http.messages import Request

_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


class Guard(NamedTuple):
    """Who may ask.

    Attributes:
        check: given a request's credentials (headers by name), and whether their owner has to be an administrator.
            Raises Unauthorized or Forbidden.
        is_open: whether everybody may have a request passed on, which then need not be looked at.
    """

    check: Callable[[Mapping[str, str], bool], None]
    is_open: bool

    def admit(self, request: Request) -> None:
        """Whether a request for a replica may pass. Raises Unauthorized."""
        if not self.is_open and not _is_preflight(request):
            self.identify(request)

    def identify(self, request: Request, is_administrator: bool = False) -> None:
        """Whether one is known who asks, and may administer if that is asked for. Raises Unauthorized or Forbidden."""
        credentials = {
            name.decode(): value.decode("latin-1") for name, value in request.headers if name in _CREDENTIALS
        }
        self.check(credentials, is_administrator)


def _is_preflight(request: Request) -> bool:
    """Whether a browser asks what it may ask: it sends no credentials with that, and the replica answers it."""
    return request.method == b"OPTIONS" and request.header(b"access-control-request-method") != b""
