"""The name of a request, in every answer and log line: the client's own where it gives a decent one."""

from __future__ import annotations

import re
from collections.abc import Callable

_DECENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""What can stand in a header, a log line and a file name without being quoted."""


def request_id_of(given: str | None, random_bits: Callable[[int], int]) -> str:
    """The x-request-id that a client gave, if it is decent, else a new one of 96 random bits."""
    if given is not None and _DECENT.fullmatch(given):
        return given
    return f"req-{random_bits(96):024x}"
