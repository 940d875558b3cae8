"""Processes of a benchmark: started in groups of their own, pinned to a core, measured, and ended by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from headrace.bench.cpu_times import CpuTimes
from headrace.errors import BenchmarkFailed

_PROC = Path("/proc")


class Running:
    """A process and its children.

    Args:
        argv: of the process. log: what it writes goes there. core: that it and its children stay on; None: any.
    """

    def __init__(
        self, argv: Sequence[str], log: Path, core: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """Start it."""
        self.argv = argv
        self._log = log
        pinned = ["taskset", "-c", str(core), *argv] if core is not None else argv
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                pinned, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **settings} if settings else None,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; one that is stopped does."""
        return self._process.poll() is None

    @property
    def log_tail(self) -> str:
        """The last that it wrote."""
        return self._log.read_text(errors="replace")[-2000:]

    def cpu_s(self) -> float:
        """Processor time of the group so far, user and system, in seconds. Raises BenchmarkFailed without /proc."""
        times = CpuTimes.now(self._process.pid)
        if times is None:
            raise BenchmarkFailed("processor times are read from /proc, which this system does not have")
        return times.group_s

    def rss_mb(self) -> float:
        """Resident memory of the group, in MB (10^6 bytes)."""
        total = 0
        for folder in _PROC.iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    if os.getpgid(int(folder.name)) == self._process.pid:
                        total += int((folder / "statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE") / 1e6

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it: asked first, then not. Harmless twice."""
        if self.is_alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
        self.signal(signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_answers(process: Running, port: int, path: str, timeout_s: float = 30.0) -> None:
    """Until a GET is answered with 200. Raises BenchmarkFailed when the process ends or the time is over."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if not process.is_alive:
            raise BenchmarkFailed(f"{process.argv[0]} ended while it was started: {process.log_tail}")
        with contextlib.suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            finally:
                connection.close()
        time.sleep(0.05)
    raise BenchmarkFailed(f"{process.argv[0]} does not answer {path} within {timeout_s:g} s: {process.log_tail}")
