"""A client that hangs up ends the work that is done for it, wherever that work stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Receive = Callable[[], Awaitable[Any]]


class ClientGone(Exception):
    """The client has closed the connection: there is nobody to answer."""


@asynccontextmanager
async def ended_with_client(receive: Receive) -> AsyncIterator[None]:
    """Run the block, whose body was read whole, until its client hangs up; then ClientGone is raised in it.

    The block is cancelled like any task, at whatever it waits for: a place in the queue, a tokenizer's thread, a token,
    room in the socket.
    """
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if is_gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
