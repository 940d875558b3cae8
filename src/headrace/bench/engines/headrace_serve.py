"""headrace as its server's clients see it: `headrace serve` in processes of its own, one stream for each request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

from headrace import __version__
from headrace.bench.serve.client import Pool, Target
from headrace.bench.serve.records import Record

_COMMAND = (sys.executable, "-m", "headrace.cli.main", "serve")
_SAYS_WHERE = "headrace: serving "
_LEAST_PRIORITY = 19
_Done = tuple[int, list[int], float | None]


class Engine:
    """A server, and a client of it."""

    version = __version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Start the server; `job["options"]` are flags of `headrace serve`, `_` for `-`."""
        options = {
            "dtype": job["dtype"],
            "max_num_seqs": min(job["num_requests"], 256),
            "max_model_len": job["max_model_len"],
            "port": 0,
        }
        flags = [word for name, value in (options | job["options"]).items() for word in (_flag(name), str(value))]
        self._server = subprocess.Popen([*_COMMAND, job["model"], *flags], stderr=subprocess.PIPE, text=True)
        os.nice(_LEAST_PRIORITY)  # this process is the client, which elsewhere has a machine of its own
        self._loop = asyncio.new_event_loop()
        self._pool = Pool(Target.parse(self._url(), "completions", None), time.perf_counter)
        self._under_way: set[asyncio.Task[_Done]] = set()

    def _url(self) -> str:
        assert self._server.stderr is not None
        for line in self._server.stderr:
            sys.stderr.write(line)
            if line.startswith(_SAYS_WHERE):
                threading.Thread(target=self._server.stderr.read, daemon=True).start()  # a full pipe would block it
                return line.split()[-1]
        raise RuntimeError(f"headrace serve ended with status {self._server.wait()} before it served")

    def begin(self) -> None:
        """Nothing to do."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Send a request as soon as the loop runs."""
        self._under_way.add(self._loop.create_task(self._ask(key, prompt, max_tokens)))

    async def _ask(self, key: int, prompt: list[int], max_tokens: int) -> _Done:
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
        now = time.perf_counter()
        record = Record(now, now)
        await self._pool.ask(body, record, None)
        if record.outcome != "ok":
            raise RuntimeError(f"request {key}: {record.error}")
        return key, record.token_ids, record.event_s[0] if record.event_s else None

    def collect(self) -> list[_Done]:
        """Wait for a request to end, and take the others that have."""
        wait = asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        done, self._under_way = self._loop.run_until_complete(wait)
        return [task.result() for task in done]

    def end(self) -> None:
        """The server waits for requests without computing."""

    def steps(self) -> dict[str, list[float]]:
        """The server does not tell."""
        return {}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


load = Engine
