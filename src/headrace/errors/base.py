"""The root of the tree."""

from __future__ import annotations

from typing import Self


class HeadraceError(Exception):
    """Root of the tree. `code` is stable and machine readable, `http_status` is what a server answers.

    Attributes:
        retry_after_s: when the same request may be tried again; None: nothing is known of that.
        hint: the value that would work, for programs that show it by itself; None: the message says all.
    """

    code = "internal_error"
    http_status = 500
    retry_after_s: float | None = None
    hint: str | None = None

    def with_hint(self, hint: str) -> Self:
        """The same error, with the value that would work."""
        self.hint = hint
        return self
