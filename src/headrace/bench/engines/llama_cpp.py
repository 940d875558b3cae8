"""llama.cpp through the C interface that llama-cpp-python opens (its `Llama` class runs one request at a time).

The loop is that of llama.cpp's own `examples/parallel`: a slot per request; each step computes the next token of every
slot that decodes, and fills up with prompts.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
import numpy as np

_MAX_SLOTS = 64
_STEP_TOKENS = 512
_CONTEXT_UNIT = 256
_QUANTIZED = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0}


def prepare(job: dict[str, Any]) -> Path:
    """Quantize the file, as the option `quantization` says; q8_0: blocks of 32 weights with a scale each."""
    source, name = Path(job["model"]), job["options"].get("quantization")
    if name is None:
        return source
    if name not in _QUANTIZED:
        raise ValueError(f"quantization={name!r} is not one of {', '.join(_QUANTIZED)}")
    target = source.with_name(f"{source.stem}-{name}.gguf")
    if not target.exists():
        unfinished = target.with_suffix(".unfinished")
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread = _QUANTIZED[name], job["threads"]
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(unfinished).encode(), ctypes.byref(params))
        if status != 0:
            raise RuntimeError(f"llama_model_quantize returned {status} for {source}")
        unfinished.rename(target)
    return target


@dataclass
class _Slot:
    """A request that runs: `done` tokens of prompt and output are in the cache."""

    number: int
    key: int
    prompt: list[int]
    max_tokens: int
    done: int = 0
    output: list[int] = field(default_factory=list)
    first_at: float | None = None

    def next_tokens(self, most: int) -> list[int]:
        """What to compute next: the last token, or a part of the prompt."""
        return self.output[-1:] if self.output else self.prompt[self.done : self.done + most]


class Engine:
    """A context with one stream of cache for all slots. Prefixes are not shared: its server does not either."""

    version = llama_cpp.__version__

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model; `job["options"]` are `quantization` (see `prepare`) and fields of llama_context_params."""
        slots = min(job["num_requests"], _MAX_SLOTS)
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max = slots
        params.n_ctx = slots * -(-job["max_model_len"] // _CONTEXT_UNIT) * _CONTEXT_UNIT
        params.n_batch = params.n_ubatch = _STEP_TOKENS
        params.n_threads = params.n_threads_batch = job["threads"]
        # With a stream per slot llama.cpp cuts a step into pieces of equal length per slot: 410 tokens/s on shape S,
        # W1, bf16, two cores. In one stream, where every request looks over everybody's tokens, 567.
        params.kv_unified = True
        for name, value in job["options"].items():
            if name == "quantization":
                continue
            getattr(params, name)  # an unknown field raises here; setting it would pass in silence
            setattr(params, name, value)
        self._step_tokens = params.n_batch
        model = llama_cpp.llama_model_load_from_file(job["model"].encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {job['model']}")
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context; its log says why")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = llama_cpp.llama_batch_init(self._step_tokens, 0, 1)
        self._free = list(range(slots))
        self._running: list[_Slot] = []
        self._waiting: deque[tuple[int, list[int], int]] = deque()

    def begin(self) -> None:
        """Nothing to start."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Keep it until a slot is free."""
        self._waiting.append((key, prompt, max_tokens))

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """One step."""
        while self._waiting and self._free:
            self._running.append(_Slot(self._free.pop(), *self._waiting.popleft()))
        sampled = self._fill()
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        for row, slot in sampled:
            slot.output.append(self._greedy(row))
            slot.first_at = slot.first_at or time.perf_counter()
        return [self._retire(slot) for _, slot in sampled if len(slot.output) == slot.max_tokens]

    def _fill(self) -> list[tuple[int, _Slot]]:
        """Put the step into the batch, decodes first; returns the rows that give a token."""
        batch, room, sampled = self._batch, self._step_tokens, []
        batch.n_tokens = 0
        for slot in sorted(self._running, key=lambda slot: not slot.output):
            tokens = slot.next_tokens(room)
            for offset, token in enumerate(tokens):
                row = batch.n_tokens + offset
                batch.token[row] = token
                batch.pos[row] = slot.done + offset
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = slot.number
                batch.logits[row] = 0
            batch.n_tokens += len(tokens)
            room -= len(tokens)
            slot.done += len(tokens)
            if tokens and slot.done >= len(slot.prompt):
                batch.logits[batch.n_tokens - 1] = 1
                sampled.append((batch.n_tokens - 1, slot))
            if not room:
                break
        return sampled

    def _greedy(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        view = np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (self._vocab_size,))
        return int(view.argmax())

    def _retire(self, slot: _Slot) -> tuple[int, list[int], float | None]:
        """Empty a slot for the next request."""
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), slot.number, -1, -1)
        self._running.remove(slot)
        self._free.append(slot.number)
        return slot.key, slot.output, slot.first_at

    def end(self) -> None:
        """It only computes when it is asked to."""

    def steps(self) -> dict[str, list[float]]:
        """It does not tell."""
        return {}


load = Engine
