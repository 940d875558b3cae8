"""One replica that the gateway started: a process, its lines, and its address."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

_SERVING = re.compile(r"headrace: serving .* at (https?://\S+)")
_ERROR = "headrace: error: "
_NUM_LAST_LINES = 10
_MAX_LINE_BYTES = 1 << 20
_LAST_LINES_S = 1.0


class Child:
    """A process that says where it serves once it does. Made by `start`.

    Attributes:
        url: where it serves; None: not yet. last_lines: of what it said, the newest last.
    """

    def __init__(self, process: asyncio.subprocess.Process, tell: Callable[[str], None]) -> None:
        """It runs."""
        self._process = process
        self._tell = tell
        self.url: str | None = None
        self.last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._reading = loop.create_task(self._read(), name=f"headrace-lines-{process.pid}")

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        tell: Callable[[str], None],
        pass_fds: Collection[int] = (),
    ) -> Child:
        """Start a process. `tell` is given each of its lines, `pass_fds` are open in it too. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_MAX_LINE_BYTES,
            pass_fds=tuple(pass_fds),
            start_new_session=True,  # Ctrl-C is the gateway's to answer: it ends them when their requests are done
        )
        return cls(process, tell)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._process.returncode is None

    @property
    def last_words(self) -> str:
        """What it said of its end: its last error, else its last line."""
        errors = [line for line in self.last_lines if line.startswith(_ERROR)]
        return errors[-1].removeprefix(_ERROR) if errors else (self.last_lines[-1] if self.last_lines else "")

    async def ready(self) -> bool:
        """Wait until it serves; False when it ended first."""
        await asyncio.wait((self._ready, self._reading), return_when=asyncio.FIRST_COMPLETED)
        return self.url is not None

    async def ended(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        code = await self._process.wait()
        # What it started may hold its end of the pipe for longer than it lives.
        await asyncio.wait((self._reading,), timeout=_LAST_LINES_S)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        return code

    async def stop(self, deadline_s: float) -> int:
        """Ask it to finish what it has, for so many seconds, then end it; returns its exit code."""
        self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(deadline_s):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        return await self.ended()

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while True:
            try:
                line = (await stream.readuntil(b"\n")).decode("utf-8", "replace").rstrip()
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    self._heard(error.partial.decode("utf-8", "replace").rstrip())
                return
            except asyncio.LimitOverrunError as error:
                await stream.readexactly(error.consumed)
                line = f"(a line of more than {_MAX_LINE_BYTES} bytes)"
            self._heard(line)

    def _heard(self, line: str) -> None:
        self.last_lines.append(line)
        self._tell(line)
        found = _SERVING.fullmatch(line)
        if found is not None and not self._ready.done():
            self.url = found.group(1)
            self._ready.set_result(None)
