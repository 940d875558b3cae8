"""The masks of guided rows, computed by threads of their own while the forward pass runs.

::

    begin ──jobs──► worker threads ──► masks
      │                                  │
      └── forward pass ──► collect ◄─────┘   what is not there a moment after the pass is late

A late row is computed again in the next step, so a grammar that takes long for a token makes only its own request slow.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Literal

import numpy as np
import numpy.typing as npt

from headrace.engine.guidance import allowed_tokens
from headrace.engine.plan import PlannedRow, SamplingRow
from headrace.errors import GuideFailed
from headrace.text.guides.bounded import start_roomy
from headrace.text.guides.guide import Guide

Mask = npt.NDArray[np.uint32]
MaskOutcome = Mask | Literal["complete", "late"] | GuideFailed
"""The tokens that a row may choose from; or that there is nothing to choose; or that nothing is known yet."""

_PATIENCE_S = 0.010
"""How much longer than its forward pass a step may take for masks. One mask takes 5 to 100 µs as a rule."""

_MOST_THREADS = 8


class _Job:
    """One row's mask. All but `row` are changed under the workers' lock."""

    __slots__ = ("batch", "is_done", "outcome", "row")

    def __init__(self, row: SamplingRow, batch: MaskBatch) -> None:
        self.row = row
        self.batch = batch
        self.outcome: MaskOutcome = "late"
        self.is_done = False


class MaskBatch:
    """The masks of one step: jobs by place in the plan."""

    __slots__ = ("is_hurried", "jobs", "num_open")

    def __init__(self) -> None:
        """Empty."""
        self.jobs: dict[int, _Job] = {}
        self.num_open = 0
        self.is_hurried = False


class MaskWorkers:
    """Threads that compute masks; they start with the first guided row. `begin` and `collect` are one thread's.

    Args:
        vocab_size: columns of the logits. patience_s: how long `collect` waits.
    """

    def __init__(self, vocab_size: int, patience_s: float = _PATIENCE_S) -> None:
        """No thread is started yet."""
        self._vocab_size = vocab_size
        self._patience_s = patience_s
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._recent: dict[Guide, _Job] = {}

    def begin(self, rows: Sequence[PlannedRow]) -> MaskBatch:
        """Start on the masks of a plan's guided rows; those that are under way since an earlier step go on."""
        batch = MaskBatch()
        recent = self._recent
        if not recent and all(row.sampling is None or row.sampling.guide is None for row in rows):
            return batch
        self._recent = {}
        for i, row in enumerate(rows):
            if row.sampling is not None and row.sampling.guide is not None:
                guide = row.sampling.guide.guide
                job = recent.get(guide)
                if job is None or job.row.position != row.sampling.position or job.is_done:
                    job = self._new_job(row.sampling, batch)
                else:
                    self._join(job, batch)
                batch.jobs[i] = self._recent[guide] = job
        return batch

    def collect(self, batch: MaskBatch, others: bool) -> dict[int, MaskOutcome]:
        """What came of each row, by place in the plan.

        Args:
            others: whether the step has rows without a guide; else there is nothing to do before the first mask.
        """
        if not batch.jobs:
            return {}
        with self._changed:
            self._changed.wait_for(lambda: batch.num_open == 0, self._patience_s)
            if batch.num_open == len(batch.jobs) and not others:
                batch.is_hurried = True
                self._changed.wait_for(lambda: batch.num_open < len(batch.jobs))
            return {i: job.outcome for i, job in batch.jobs.items()}

    def close(self) -> None:
        """End the threads, each after the mask that it works on."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _new_job(self, row: SamplingRow, batch: MaskBatch) -> _Job:
        if not self._threads:
            self._start_threads()
        job = _Job(row, batch)
        with self._changed:
            batch.num_open += 1
        self._queue.put(job)
        return job

    def _join(self, job: _Job, batch: MaskBatch) -> None:
        with self._changed:
            if not job.is_done:  # it may have been ready a moment ago
                job.batch = batch
                batch.num_open += 1

    def _start_threads(self) -> None:
        count = min(max(2, (os.cpu_count() or 2) // 2), _MOST_THREADS)
        self._threads = [
            threading.Thread(target=self._work, name=f"headrace-masks-{i}", daemon=True) for i in range(count)
        ]
        for thread in self._threads:
            start_roomy(thread)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            outcome = self._outcome(job.row)
            with self._changed:
                job.outcome, job.is_done = outcome, True
                job.batch.num_open -= 1
                if job.batch.num_open == 0 or job.batch.is_hurried:
                    self._changed.notify_all()

    def _outcome(self, row: SamplingRow) -> MaskOutcome:
        try:
            bits = allowed_tokens(row, self._vocab_size)
        except GuideFailed as error:
            return error
        except BaseException as error:  # a panic in native code too: it fails this row, and not the thread
            return GuideFailed(f"the guide's mask could not be computed: {type(error).__name__}: {error}")
        return "complete" if bits is None else bits
