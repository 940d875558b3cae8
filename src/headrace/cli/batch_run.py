"""Runs tasks through an engine with a bounded number of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from headrace.cli.batch_input import Task
from headrace.cli.batch_output import error_record, result_record
from headrace.engine.progress import Progress
from headrace.errors import EngineDead, EngineStopped, HeadraceError, QueueFull

if TYPE_CHECKING:
    from headrace import LLM, RequestHandle


def prompt_of(llm: LLM, task: Task) -> str | list[int]:
    """What to submit for a task; raises InvalidRequest for a task that cannot be run."""
    if task.error is not None:
        raise task.error
    if task.messages is not None:
        return llm.chat_prompt(task.messages)
    assert task.prompt is not None, "a task without an error has a prompt or messages"
    return task.prompt


@dataclass(slots=True)
class BatchRun:
    """Submits tasks as a sliding window: wide enough to keep the engine's batch full, whatever the input's length.

    Attributes:
        llm: the engine.
        write: takes each finished record, at once.
        progress: told of each.
        num_failed: records with an error so far.
    """

    llm: LLM
    write: Callable[[dict[str, Any]], None]
    progress: Progress
    num_failed: int = 0
    _pending: dict[RequestHandle, Task] = field(default_factory=dict)
    _ended: SimpleQueue[RequestHandle] = field(default_factory=SimpleQueue)

    def run(self, tasks: Iterable[Task]) -> None:
        """Run all tasks; on an interrupt the pending ones are cancelled, and there is no record of them.

        Raises:
            EngineDead: the engine died; there is a record of every task that ended before.
        """
        window = self._window()
        try:
            for task in tasks:
                while len(self._pending) >= window:
                    self._collect()
                self._submit(task)
            while self._pending:
                self._collect()
        except BaseException:
            for handle in self._pending:
                handle.cancel()
            raise

    def _window(self) -> int:
        config = self.llm.config
        assert config.max_num_seqs is not None, "an LLM's config has every setting worked out"
        window = 2 * config.max_num_seqs
        return window if config.max_queue_size is None else min(window, config.max_queue_size)

    def _submit(self, task: Task) -> None:
        try:
            handle = self._accept(task)
        except (EngineDead, EngineStopped):
            raise
        except HeadraceError as error:
            self._finish(error_record(task, error), 0)
        else:
            self._pending[handle] = task
            handle.on_done(self._ended.put)

    def _accept(self, task: Task) -> RequestHandle:
        prompt = prompt_of(self.llm, task)
        while True:
            try:
                return self.llm.submit(prompt, task.params)
            except QueueFull:  # n > 1 takes more than one place
                if not self._pending:
                    raise
                self._collect()

    def _collect(self) -> None:
        """Wait until one of the pending requests has ended."""
        handle = self._ended.get()
        output = handle.result()
        task = self._pending.pop(handle)
        if isinstance(output.error, EngineDead | EngineStopped):
            raise output.error
        self._finish(result_record(task, output), sum(len(completion.token_ids) for completion in output.outputs))

    def _finish(self, record: dict[str, Any], num_tokens: int) -> None:
        self.write(record)
        failed = record["error"] is not None
        self.num_failed += failed
        self.progress.update(num_tokens, failed=failed)
