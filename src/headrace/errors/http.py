"""What a server answers before it looks into a request's fields."""

from __future__ import annotations

from headrace.errors.base import HeadraceError


class BodyTooLarge(HeadraceError):
    """A body over the server's limit; nothing of it was kept."""

    code = "body_too_large"
    http_status = 413


class BodyTooSlow(HeadraceError):
    """A body that did not come in time."""

    code = "body_too_slow"
    http_status = 408


class UnsupportedEncoding(HeadraceError):
    """A body that was compressed."""

    code = "unsupported_encoding"
    http_status = 415


class RouteNotFound(HeadraceError):
    """A path that is not served."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(HeadraceError):
    """A path that is served, by another method."""

    code = "method_not_allowed"
    http_status = 405


class ModelNotFound(HeadraceError):
    """A model that is not served here."""

    code = "model_not_found"
    http_status = 404


class Unauthorized(HeadraceError):
    """No key or token, or one that is not valid; the message never says which part of it was near."""

    code = "unauthorized"
    http_status = 401


class Forbidden(HeadraceError):
    """A valid key or token whose role may not do this."""

    code = "forbidden"
    http_status = 403


class TooManyStreams(HeadraceError):
    """The key has as many streams open as it may."""

    code = "too_many_streams"
    http_status = 429
    retry_after_s = 1.0  # nobody knows when one of them ends
