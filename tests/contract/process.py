"""A real server: `headrace serve` as a process of its own, on a free port, ended with everything that it started."""

from __future__ import annotations

import ctypes
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

START_S = 60.0
"""For a start beside other tests; a start alone takes about three seconds."""

BUILTIN_VOCABULARY = 1536

_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no certificate. Made once: httpx would read the system's certificates for every request."""

_PR_SET_PDEATHSIG = 1


def headrace(*arguments: str) -> list[str]:
    """The command line of the `headrace` beside this interpreter."""
    return [str(Path(sys.executable).with_name("headrace")), *arguments]


def simulated(**fields: float) -> list[str]:
    """Flags of an engine with a cost model in place of a model: it starts in a second, and never ends by itself."""
    given = {"vocab_size": BUILTIN_VOCABULARY, **fields}
    return [word for name, value in given.items() for word in ("--simulated", f"{name}={value}")]


class Server:
    """A server's process.

    Args:
        arguments: of the command, the model first. environment: besides this process's.
        command: `headrace serve`, or what stands in its place. folder: to run in.

    Attributes:
        url: where it serves; known after `wait_until_served`. lines: of its standard error, so far.
    """

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        command: list[str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.url = ""
        self.lines: list[str] = []
        self._is_news = threading.Condition()
        self._is_over = False
        self.process = subprocess.Popen(
            [*(command or headrace("serve")), *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment() | (environment or {}),
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._is_news:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._is_news.notify_all()
        with self._is_news:
            self._is_over = True
            self._is_news.notify_all()

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, words: str, limit_s: float = START_S) -> str:
        """The first line with these words; fails when the process ends without one."""

        def found() -> list[str]:
            return [line for line in list(self.lines) if words in line]

        with self._is_news:
            self._is_news.wait_for(lambda: bool(found()) or self._is_over, limit_s)
        assert found(), f"no line with {words!r} in:\n{self.log}"
        return found()[0]

    def wait_until_served(self) -> Server:
        """Until it says where it serves."""
        self.url = self.wait_for_line("headrace: serving").rpartition(" ")[2]
        return self

    def wait(self, limit_s: float = 30.0) -> int:
        """Its exit code, when it ends by itself."""
        code = self.process.wait(limit_s)
        self._reader.join(limit_s)
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def engine_pid(self) -> int:
        """Of the engine's process: the server's only child."""
        children = [
            int(pid)
            for task in Path(f"/proc/{self.process.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        (pid,) = children
        return pid

    def num_descriptors(self) -> int:
        """Open files and sockets of the HTTP process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, **{"timeout": 10, "verify": _NOBODY, **options})

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, **{"timeout": 30, "verify": _NOBODY, **options})

    def state(self) -> dict[str, Any]:
        """GET /admin/state."""
        answer: dict[str, Any] = self.get("/admin/state").raise_for_status().json()
        return answer

    def end(self) -> None:
        """End the process and all that it started, if it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGCONT)
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def serving(*arguments: str, **options: Any) -> Iterator[Server]:
    """A server that serves on a free port of the loopback address, unless the arguments say otherwise."""
    if not any(argument in ("--port", "--uds") for argument in arguments):
        arguments = (*arguments, "--port", "0")
    server = Server(*arguments, **options)
    try:
        yield server.wait_until_served()
    finally:
        server.end()


def is_idle(state: dict[str, Any]) -> bool:
    """Whether /admin/state shows no request, no block in use and nothing under way in the server."""
    engine, server = state["engine"], state["server"]
    return not (
        engine["running"]
        or engine["waiting"]
        or any(pool["used"] for pool in engine["cache"]["pools"])
        or server["num_active"]
        or server["load"]["num_running"]
        or server["load"]["num_waiting"]
    )


def seconds_until(condition: Callable[[], Any], limit_s: float = 10.0, pause_s: float = 0.005) -> float:
    """How long a condition of another process takes to hold."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + limit_s, f"still not so after {limit_s} s"
        time.sleep(pause_s)
    return time.monotonic() - begin


def _environment() -> dict[str, str]:
    """One thread, and none of this user's settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return plain | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def _end_with_parent() -> None:
    """In the child: die with the process that runs the tests, however that ends."""
    with suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
