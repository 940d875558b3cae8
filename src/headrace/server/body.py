"""Bodies of requests, read as they come: never more of one in memory than the limit, and none that takes for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from headrace.errors import BodyTooLarge, BodyTooSlow, UnsupportedEncoding
from headrace.server.disconnect import ClientGone

Receive = Callable[[], Awaitable[Any]]

GRACE_S = 30.0
MIN_BYTES_PER_S = 16 << 10


async def read_body(receive: Receive, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """The whole body.

    Args:
        receive: of ASGI. headers: by lower-case name. max_bytes: of the body.

    Raises:
        BodyTooLarge: at once where the length is announced, else when it is exceeded. ClientGone: before its end.
        BodyTooSlow: it comes slower than GRACE_S and MIN_BYTES_PER_S allow. UnsupportedEncoding: it is compressed.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedEncoding(
            f"the body comes with content-encoding {encoding[:40]!r}; send it as it is, without that header"
        ).with_hint("identity")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(f"the body has {int(announced)} bytes", max_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    while True:
        try:
            async with asyncio.timeout_at(started_s + GRACE_S + num_bytes / MIN_BYTES_PER_S):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"{num_bytes} bytes of the body came in {loop.time() - started_s:.0f} s, and then it stopped"
            ).with_hint(f"{MIN_BYTES_PER_S} bytes a second, after {GRACE_S:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        num_bytes += len(chunks[-1])
        if num_bytes > max_bytes:
            raise _too_large(f"the body has more than {max_bytes} bytes", max_bytes)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(what: str, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"{what}; this server takes {max_bytes} (max_body_bytes={max_bytes})").with_hint(
        f"at most {max_bytes} bytes"
    )
