"""The child's end of the connection: blocking, one reader, several writers."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

from headrace.engine.remote.frames import FrameBuffer, framed
from headrace.engine.remote.messages import FromChild, encoder

_READ_BYTES = 1 << 18


class ChildConnection:
    """Sends messages to the parent, and reads the payloads that it sends.

    A parent that does not read makes `send` wait, so what is not sent yet stays where it is: with the engine's
    dispatcher, bounded by what is live. The engine's own thread never sends.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Takes over the socket."""
        self._socket = sock
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLOUT)

    def send(self, message: FromChild) -> None:
        """Send a message whole. OSError when the parent is gone."""
        payload = framed(encoder.encode(message))
        with self._lock:
            self._socket.sendall(payload)

    def send_unless_full(self, message: FromChild) -> bool:
        """Send a small message if that needs no waiting; else drop it, and return False."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            # Writable means: a good part of the buffer is free, many times what a small message takes.
            if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                return False
            self._socket.sendall(framed(encoder.encode(message)))
            return True
        finally:
            self._lock.release()

    def payloads(self) -> Iterator[bytes]:
        """What the parent sends, until it closes the connection or is gone."""
        frames = FrameBuffer()
        try:
            while data := self._socket.recv(_READ_BYTES):
                yield from frames.feed(data)
        except ConnectionResetError:
            return
