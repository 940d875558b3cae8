"""The process around one engine: `python host.py ADAPTER`, orders and answers as JSON lines on stdin and stdout.

::

    {"do": "prepare", "job": {…}}                               ──►  {"model": …}
    {"do": "load", "job": {…}}                                  ──►  {"version": …, "load_s": …}
    {"do": "run", "requests": [[ids, n], …], "concurrency": c}  ──►  {"seconds": …, "requests": [{…}, …], "steps": …}
    anything that raises                                        ──►  {"error": "ValueError: …"}

It runs under any interpreter: nothing but the standard library is imported here, and the environment is set here
because native libraries read it once, when they are loaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Engine(Protocol):
    """What an adapter makes of its engine. Greedy, end-of-sequence tokens ignored, exactly `max_tokens` each.

    Attributes:
        version: of the package that was measured.
    """

    version: str

    def begin(self) -> None:
        """Before the clock starts: whatever an engine has to do once per session."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Take a request; returns at once."""

    def collect(self) -> Sequence[tuple[int, list[int], float | None]]:
        """Compute, or wait, until something was done.

        Returns:
            Of each request that finished: key, generated tokens, `time.perf_counter()` of the first of them
            (None where the engine does not tell). May be empty; must not be called when nothing was submitted.
        """
        ...

    def end(self) -> None:
        """After the clock stopped: idle without using the processor."""

    def steps(self) -> dict[str, list[float]]:
        """Seconds that the parts of each step took since `begin`, by part; empty where nothing was measured."""
        ...


def adapter(adapter_file: str, job: dict[str, Any]) -> Any:
    """The adapter's module. `job`: model, dtype, threads, max_model_len, num_requests, num_tokens, options."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(job["threads"])
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"})
    spec = importlib.util.spec_from_file_location("adapter", adapter_file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{adapter_file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def run(engine: Engine, requests: list[tuple[list[int], int]], concurrency: int) -> dict[str, Any]:
    """A closed loop: `concurrency` requests at a time, the next one starts when one finishes.

    Returns:
        seconds: from the first submission to the last token. requests: token_ids, ttft_s and e2e_s of each, counted
        from its own submission. steps: as the engine says.

    Raises:
        RuntimeError: the engine did not generate what was asked for.
    """
    results: list[dict[str, Any]] = [{} for _ in requests]
    submitted_at: dict[int, float] = {}
    num_submitted = num_finished = 0
    engine.begin()
    started_at = time.perf_counter()
    while num_finished < len(requests):
        while num_submitted < len(requests) and num_submitted - num_finished < concurrency:
            submitted_at[num_submitted] = time.perf_counter()
            engine.submit(num_submitted, *requests[num_submitted])
            num_submitted += 1
        for key, token_ids, first_at in engine.collect():
            ttft_s = None if first_at is None else first_at - submitted_at[key]
            e2e_s = time.perf_counter() - submitted_at[key]
            results[key] = {"token_ids": token_ids, "ttft_s": ttft_s, "e2e_s": e2e_s}
            num_finished += 1
    seconds = time.perf_counter() - started_at
    steps = engine.steps()
    engine.end()
    for key, ((_, max_tokens), result) in enumerate(zip(requests, results, strict=True)):
        if len(result["token_ids"]) != max_tokens:
            raise RuntimeError(f"request {key} asked for {max_tokens} tokens and got {len(result['token_ids'])}")
    return {"seconds": seconds, "requests": results, "steps": steps}


def serve(adapter_file: str) -> None:
    """Answer orders until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log, not between the answers
    sys.path.pop(0)  # the adapters' folder: a file there must not hide a package of the same name
    engine: Engine | None = None
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any]
        try:
            if order["do"] == "prepare":
                answer = {"model": str(adapter(adapter_file, order["job"]).prepare(order["job"]))}
            elif order["do"] == "load":
                started_at = time.perf_counter()
                engine = adapter(adapter_file, order["job"]).load(order["job"])
                assert engine is not None
                answer = {"version": engine.version, "load_s": time.perf_counter() - started_at}
            elif engine is not None:
                answer = run(engine, order["requests"], order["concurrency"])
            else:
                raise RuntimeError("nothing was loaded")
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
