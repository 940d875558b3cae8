"""The root of the tree."""

from __future__ import annotations


class HeadraceError(Exception):
    """Root of the tree. `code` is stable and machine readable, `http_status` is what a server answers.

    Attributes:
        retry_after_s: when the same request may be tried again; None: nothing is known of that.
    """

    code = "internal_error"
    http_status = 500
    retry_after_s: float | None = None
