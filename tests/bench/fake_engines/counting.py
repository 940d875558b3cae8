"""An engine that counts upwards from the last token of the prompt. Misbehaves as `job["options"]` says."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def prepare(job: dict[str, Any]) -> Path:
    """Note by which process, with how many threads, and in front of what it was called."""
    if job["options"].get("fails") == "prepare":
        raise ValueError("no such format")
    target = Path(job["options"]["converted"])
    target.write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {job['model']}")
    return target


@dataclass(slots=True)
class Order:
    """A dataclass, because it only works in a module that the interpreter knows."""

    key: int
    prompt: list[int]
    max_tokens: int


class Engine:
    """One request per step, in order."""

    version = "1.0"

    def __init__(self, job: dict[str, Any]) -> None:
        self._options = job["options"]
        self._job = job
        self._running: deque[Order] = deque()
        self._most = 0
        print("a library prints to stdout while it loads")
        if "converted" in self._options and job["model"] != self._options["converted"]:
            raise ValueError(f"{job['model']} was not converted")
        if self._options.get("fails") == "load":
            raise ValueError("no such model")

    def begin(self) -> None:
        self._most = 0

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        self._running.append(Order(key, prompt, max_tokens))
        self._most = max(self._most, len(self._running))

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        order = self._running.popleft()
        key, prompt, max_tokens = order.key, order.prompt, order.max_tokens
        step = self._options.get("step", 1)
        fails = self._options.get("fails") if max_tokens > 4 else None  # the warm-up asks for at most four
        if fails == "crash":
            print("Fatal: the last line", file=sys.stderr, flush=True)
            os._exit(3)
        if fails == "hang":
            time.sleep(600)
        if fails == "raise":
            raise ValueError("a row of NaN")
        if fails == "short":
            max_tokens -= 1
        print("a library prints to stdout while it runs")
        time.sleep(self._options.get("seconds", 0.0))
        return [(key, [prompt[-1] + step * i for i in range(1, max_tokens + 1)], time.perf_counter())]

    def end(self) -> None:
        pass

    def steps(self) -> dict[str, list[float]]:
        return {
            "most_running": [float(self._most)] * 2,
            "threads": [float(os.environ["OMP_NUM_THREADS"])] * 2,
            "pid": [float(os.getpid())] * 2,
        }


load = Engine
