"""The connection between the parent and one of its processes."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from headrace.engine.remote.frames import FrameBuffer, framed
from headrace.errors import HeadraceError, ServerDraining
from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.messages import Request
from headrace.gateway.processes.messages import Answered, Asked, Message, decode, encode
from headrace.protocol.error_body import error_body

_MOST_BUFFERED_BYTES = 1 << 20
"""What may wait for the other end before that is left out which may get lost."""


class Link(asyncio.Protocol):
    """One end. Used by one event loop.

    Args:
        received: given what the other end tells. answer: answers what it asks. lost: called when it is gone.
    """

    def __init__(
        self,
        received: Callable[[Message], None],
        answer: Callable[[Request], Awaitable[OwnAnswer]],
        lost: Callable[[], None],
    ) -> None:
        """Not connected."""
        self._received = received
        self._answer = answer
        self._lost = lost
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[OwnAnswer]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def connect(self, end: socket.socket) -> None:
        """Over one end of a socket pair, which is the link's from now on."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, message: Message) -> None:
        """Tell the other end, if it is there."""
        if self._transport is not None:
            self._transport.write(framed(encode(message)))

    def send_if_room(self, message: Message) -> None:
        """Tell the other end what it can do without, unless it is far behind."""
        if self._transport is not None and self._transport.get_write_buffer_size() < _MOST_BUFFERED_BYTES:
            self.send(message)

    async def ask(self, request: Request) -> OwnAnswer:
        """What the other end answers. Raises ServerDraining when it is gone."""
        if self._transport is None:
            raise _gone()
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        self.send(Asked.of(number, request))
        try:
            return await self._asked[number]
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """Send what is still to be sent, and hang up."""
        if self._transport is not None:
            self._transport.close()

    # ---------------------------------------------------------------- asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of messages."""
        for payload in self._frames.feed(data):
            message = decode(payload)
            if isinstance(message, Asked):
                task = asyncio.get_running_loop().create_task(self._answered(message))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            elif isinstance(message, Answered):
                waiting = self._asked.get(message.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message.answer)
            else:
                self._received(message)

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is gone."""
        self._transport = None
        for task in self._answering:
            task.cancel()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(_gone())
        self._lost()

    async def _answered(self, asked: Asked) -> None:
        try:
            answer = await self._answer(asked.request)
        except HeadraceError as error:
            told = error_body(error)
            headers = tuple((name.encode(), value.encode()) for name, value in told.headers.items())
            answer = OwnAnswer(told.status, msgspec.json.encode(told.body), headers=headers)
        self.send(Answered.of(asked.number, answer))


def _gone() -> ServerDraining:
    return ServerDraining("the process of the gateway that was to answer this has ended")
