"""One engine process, from the parent's side: started, spoken to, watched to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, cast

from headrace.engine.remote.endings import silent_death
from headrace.engine.remote.errors_on_wire import rebuilt
from headrace.engine.remote.frames import FrameBuffer, framed
from headrace.engine.remote.log_lines import parse
from headrace.engine.remote.messages import FromChild, LastWords, Ready, ToChild, encoder, from_child_decoder
from headrace.engine.remote.spec import EngineInfo, EngineSpec
from headrace.errors import HeadraceError

_KEPT_LINES = 60
_EXIT_TIMEOUT_S = 5.0
"""Between the end of the connection and the end of the process, or the other way round, until it is helped along."""


class ChildProcess(asyncio.Protocol):
    """A started engine process and the connection to it.

    Args:
        command: to which the descriptor and our pid are added. clock: seconds, monotonic.
        on_message: gets what it says, but for the first and the last words.

    Attributes:
        ready: its EngineInfo, when it is. Cancelled when it ends before.
        ended: why it ended, when it has ended and all that it sent was taken; None: it was told to.
        last_message_s: clock when it last said something. pid: of the process.
    """

    def __init__(
        self, command: Sequence[str], clock: Callable[[], float], on_message: Callable[[FromChild], None]
    ) -> None:
        """Not started."""
        self._command = tuple(command)
        self._clock = clock
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._frames = FrameBuffer()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._last_words: LastWords | None = None
        self._status: int | None = None
        self._has_exited = self._has_closed = False
        self._helper: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[EngineInfo] = self._loop.create_future()
        self.ended: asyncio.Future[HeadraceError | None] = self._loop.create_future()
        self.last_message_s = clock()
        self.pid = 0

    async def start(self, spec: EngineSpec) -> None:
        """Start it and send the spec. OSError when no process can be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not in an executor: the child is killed when the thread that started it ends.
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        assert self._process.stdout is not None
        log = threading.Thread(target=self._read_log, args=(self._process.stdout,), name="engine-log", daemon=True)
        log.start()
        threading.Thread(target=self._wait, args=(log,), name="engine-exit", daemon=True).start()
        ours.setblocking(False)
        # Shielded: a connection that is given up half way would never tell us that it has ended.
        await asyncio.shield(self._loop.create_task(self._connect(ours)))
        assert self._transport is not None
        self._transport.write(framed(encoder.encode(spec)))

    async def _connect(self, ours: socket.socket) -> None:
        await self._loop.create_unix_connection(lambda: self, sock=ours)

    def send(self, message: ToChild) -> None:
        """Send a message; dropped when the connection is closed, because then everything live is ended anyway."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(encoder.encode(message)))

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        if self.pid and not self._has_exited:
            self._process.kill()

    # ---------------------------------------------------------------- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be spoken to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        """What it says."""
        self.last_message_s = self._clock()
        for payload in self._frames.feed(data):
            match from_child_decoder.decode(payload):
                case Ready(info):
                    if not self.ready.done():
                        self.ready.set_result(info)
                case LastWords() as words:
                    self._last_words = words
                case message:
                    self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has said all that it will."""
        self._has_closed = True
        if self._has_exited:
            self._finish()
        else:
            self._helper = self._loop.call_later(_EXIT_TIMEOUT_S, self.kill)

    # ---------------------------------------------------------------- the process

    def _exited(self, status: int) -> None:
        self._has_exited, self._status = True, status
        if self._has_closed or self._transport is None:
            self._finish()
        else:  # what it sent may still lie in the socket; a process that it started may hold it open
            self._helper = self._loop.call_later(_EXIT_TIMEOUT_S, self._transport.abort)

    def _finish(self) -> None:
        if self._helper is not None:
            self._helper.cancel()
        if not self.ready.done():
            self.ready.cancel()
        if not self.ended.done():
            words = self._last_words
            if words is None:
                self.ended.set_result(silent_death(self._status, list(self._lines)))
            else:
                self.ended.set_result(None if words.error is None else rebuilt(words.error))

    def _wait(self, log: threading.Thread) -> None:
        status = self._process.wait()
        log.join(_EXIT_TIMEOUT_S / 10)  # its last lines tell why
        try:
            self._loop.call_soon_threadsafe(self._exited, status)
        except RuntimeError:
            return  # the loop is closed: nobody asks any more

    def _read_log(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                name, level, words = parse(line.decode(errors="replace").rstrip("\n"), "headrace.engine.process")
                self._lines.append(words)
                logging.getLogger(name).log(level, "engine %d: %s", self.pid, words)
