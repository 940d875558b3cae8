"""Drives one engine in its own process. Between orders the process is stopped: only one engine computes at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.bench.engines import EngineSpec
from headrace.bench.workloads import Request
from headrace.errors import HeadraceError

_HOST = Path(__file__).with_name("host.py")
_LOG_TAIL_BYTES = 4096


class EngineFailed(HeadraceError):
    """An engine under test crashed, raised, or did not answer in time. The message ends with what it said last."""

    code = "engine_failed"


class EngineProcess:
    """One engine's process, and a process group of its own: whatever it starts is stopped, resumed and ended with it.

    The group stays in this process's session: should this process be killed, the group is orphaned, and the kernel
    wakes what is stopped in it with SIGHUP, which ends it. Nothing is left behind.
    """

    def __init__(self, spec: EngineSpec, python: Path | None, log: Path) -> None:
        """Start it.

        Args:
            spec: which engine.
            python: interpreter of a peer; it is kept from this one's PYTHONPATH. None takes this interpreter.
            log: file for all that the engine prints.

        Raises:
            EngineFailed: the interpreter cannot be started.
        """
        self.spec = spec
        self._log = log
        command = [sys.executable] if python is None else [str(python), "-E"]
        try:
            with log.open("wb") as sink:
                self._process = subprocess.Popen(
                    [*command, str(_HOST), str(spec.adapter)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    process_group=0,
                    text=True,
                )
        except OSError as error:
            raise EngineFailed(f"{python} cannot be started: {error.strerror}") from error

    @property
    def group_id(self) -> int:
        """Of the process group that holds all the engine's processes."""
        return self._process.pid

    def prepare(self, job: dict[str, Any], timeout_s: float) -> Path:
        """Convert the model, if that was not done before; returns what to load. Raises EngineFailed."""
        return Path(self._ask({"do": "prepare", "job": job}, timeout_s)["model"])

    def load(self, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Load the model; see `host`. Raises EngineFailed."""
        return self._ask({"do": "load", "job": job}, timeout_s)

    def run(self, requests: Sequence[Request], concurrency: int, timeout_s: float) -> dict[str, Any]:
        """Generate; see `host`. Raises EngineFailed."""
        pairs = [(request.prompt_token_ids, request.max_tokens) for request in requests]
        return self._ask({"do": "run", "requests": pairs, "concurrency": concurrency}, timeout_s)

    def close(self) -> None:
        """End every process of the engine."""
        self._signal(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()

    def _ask(self, order: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send an order and wait for its answer, at most `timeout_s`."""
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._signal(signal.SIGKILL)

        self._signal(signal.SIGCONT)
        timer = threading.Timer(timeout_s, give_up)
        timer.start()
        try:
            line = self._exchange(json.dumps(order))
        finally:
            timer.cancel()
        if timed_out.is_set():
            raise EngineFailed(f"no answer in {timeout_s:.0f} s{self._last_words()}")
        if not line:
            raise EngineFailed(f"exited with status {self._process.wait()}{self._last_words()}")
        self._signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"].strip().splitlines()[0])
        return answer

    def _exchange(self, order: str) -> str:
        """Write a line, read a line; an empty one when the process has gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group_id, number)

    def _last_words(self) -> str:
        """The last line that the engine printed, to be put behind a message."""
        with self._log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""
