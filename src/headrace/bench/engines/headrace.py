"""headrace itself, through the interface that its users have: `LLM.submit`."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from typing import Any

from headrace import LLM, RequestHandle, SamplingParams, __version__


class Engine:
    """An `LLM` with room for the whole workload at once."""

    version = __version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model; `job["options"]` are settings of the LLM."""
        import torch

        torch.set_num_threads(job["threads"])
        settings = {"max_num_seqs": min(job["num_requests"], 256), "max_model_len": job["max_model_len"]}
        self._llm = LLM(job["model"], dtype=job["dtype"], **(settings | job["options"]))
        self._ended: SimpleQueue[RequestHandle] = SimpleQueue()
        self._submitted: dict[str, tuple[int, float]] = {}
        self._steps_before = 0

    def begin(self) -> None:
        """Forget the steps before."""
        self._steps_before = self._num_steps()

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Start a request."""
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        now = time.perf_counter()
        handle = self._llm.submit(prompt, params, request_id=str(key))
        self._submitted[handle.request_id] = (key, now)
        handle.on_done(self._ended.put)

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """Wait for a request to end, and take the others that have."""
        done = [self._finished(self._ended.get())]
        try:
            while True:
                done.append(self._finished(self._ended.get_nowait()))
        except Empty:
            return done

    def _finished(self, handle: RequestHandle) -> tuple[int, list[int], float | None]:
        output = handle.result()
        if output.error is not None:
            raise output.error
        key, submitted_at = self._submitted.pop(output.request_id)
        ttft_s = output.timing.ttft_s
        return key, list(output.outputs[0].token_ids), None if ttft_s is None else submitted_at + ttft_s

    def end(self) -> None:
        """The engine's thread waits for requests without computing."""

    def _num_steps(self) -> int:
        num_steps: int = self._llm.dump_state()["counters"]["num_steps"]
        return num_steps

    def steps(self) -> dict[str, list[float]]:
        """Scheduling, the model with sampling, and bookkeeping afterwards."""
        steps = self._llm.recent_steps()[self._steps_before - self._num_steps() :]
        return {
            "schedule": [step.schedule_s for step in steps],
            "execute": [step.execute_s for step in steps],
            "update": [step.update_s for step in steps],
        }


load = Engine
