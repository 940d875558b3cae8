"""Sends a plan to a server, in time, and collects what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from headrace.bench.serve.client import Pool, Target
from headrace.bench.serve.plan import Conversation, Mix, Turn
from headrace.bench.serve.records import Record


class Driver:
    """One run.

    Args:
        target: the server. model: the name that requests ask for. mix: what the requests are like.
        max_concurrency: most requests under way; one that is due later waits for a free client, and latencies count
            from then on (a closed loop). None: no bound, and latencies count from when the request was due.
        timeout_s: a request that takes longer is given up. ignore_eos: answers have their full length.
    """

    def __init__(
        self,
        target: Target,
        model: str,
        mix: Mix,
        max_concurrency: int | None,
        timeout_s: float,
        ignore_eos: bool,
        clock: Callable[[], float],
    ) -> None:
        """Nothing sent yet."""
        self._target = target
        self._model = model
        self._mix = mix
        self._slots = asyncio.Semaphore(max_concurrency) if max_concurrency else None
        self._timeout_s = timeout_s
        self._ignore_eos = ignore_eos
        self._clock = clock
        self.records: list[Record] = []
        self.num_under_way = 0
        self.most_under_way = 0

    async def run(self, plan: Sequence[Conversation]) -> list[Record]:
        """Send everything; returns a record per request that was sent, in the order of sending."""
        begin = self._clock()
        pool = Pool(self._target, lambda: self._clock() - begin)
        try:
            async with asyncio.TaskGroup() as tasks:
                for conversation in plan:
                    wait_s = conversation.at_s - (self._clock() - begin)
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                    tasks.create_task(self._converse(conversation, pool, begin))
        finally:
            pool.close()
        return self.records

    async def _converse(self, conversation: Conversation, pool: Pool, begin: float) -> None:
        history: list[dict[str, str]] = []
        if conversation.system:
            history.append({"role": "system", "content": conversation.system})
        due_s = conversation.at_s
        for turn in conversation.turns:
            history.append({"role": "user", "content": turn.text})
            record = await self._ask(self._body(history, turn), turn, pool, due_s, begin)
            if record.outcome != "ok":
                return
            history.append({"role": "assistant", "content": record.text})
            due_s = record.end_s

    async def _ask(self, body: dict[str, Any], turn: Turn, pool: Pool, due_s: float, begin: float) -> Record:
        if self._slots is not None:
            await self._slots.acquire()
            due_s = max(due_s, self._clock() - begin)
        record = Record(due_s, self._clock() - begin)
        self.records.append(record)
        self.num_under_way += 1
        self.most_under_way = max(self.most_under_way, self.num_under_way)
        try:
            async with asyncio.timeout(self._timeout_s):
                await pool.ask(body, record, turn.cancel_after)
        except TimeoutError:
            record.end_s, record.outcome = self._clock() - begin, "error"
            record.error = f"given up after {self._timeout_s:g} s"
        finally:
            self.num_under_way -= 1
            if self._slots is not None:
                self._slots.release()
        return record

    def _body(self, history: Sequence[dict[str, str]], turn: Turn) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": turn.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": turn.seed,
        }
        if self._ignore_eos:
            body["ignore_eos"] = True
        if self._mix.temperature is not None:
            body["temperature"] = self._mix.temperature
        if self._target.path.endswith("/chat/completions"):
            body["messages"] = list(history)
        else:
            body["prompt"] = "\n".join(message["content"] for message in history)
        return body
