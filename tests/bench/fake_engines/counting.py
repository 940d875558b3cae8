"""An engine that counts upwards from the last token of the prompt. Misbehaves as `job["options"]` says."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import Any


class Engine:
    """One request per step, in order."""

    version = "1.0"

    def __init__(self, job: dict[str, Any]) -> None:
        self._options = job["options"]
        self._job = job
        self._running: deque[tuple[int, list[int], int]] = deque()
        self._most = 0
        print("a library prints to stdout while it loads")
        if self._options.get("fails") == "load":
            raise ValueError("no such model")

    def begin(self) -> None:
        self._most = 0

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        self._running.append((key, prompt, max_tokens))
        self._most = max(self._most, len(self._running))

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        key, prompt, max_tokens = self._running.popleft()
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
        return {"most_running": [float(self._most)] * 2, "threads": [float(os.environ["OMP_NUM_THREADS"])] * 2}


load = Engine
