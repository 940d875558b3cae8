"""OpenVINO GenAI's continuous batching, on models that optimum-intel converted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_STEP_TOKENS = 2048
"""Shape S, W1, bf16 on two cores: 2,056 and 1,782 tokens/s, where 256 gave 1,850 and 1,536, and 512 1,969 and 1,665."""
_CACHE_GIB = 2
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_WEIGHTS = {None: {"float32": "fp32", "bfloat16": "fp16"}, "int8": {"float32": "int8", "bfloat16": "int8"}}
"""Weights of bfloat16 lie in fp16 on disk, which optimum-intel writes; the plugin makes them bf16 when it compiles."""


def prepare(job: dict[str, Any]) -> Path:
    """Convert the model into OpenVINO's representation beside itself; `quantization`: "int8" is INT8_ASYM weights."""
    quantization = job["options"].get("quantization")
    if quantization not in _WEIGHTS:
        raise ValueError(f"quantization={quantization!r} is not int8")
    weights = _WEIGHTS[quantization][job["dtype"]]
    target = Path(job["model"]) / f"openvino-{weights}"
    if not target.exists():
        unfinished = target.with_name(target.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = ["export", "openvino", "--model", job["model"], "--task", "text-generation-with-past"]
        command += ["--weight-format", weights, "--disable-convert-tokenizer", str(unfinished)]
        subprocess.run([sys.executable, "-m", "optimum.commands.optimum_cli", *command], check=True)
        unfinished.rename(target)
    return target


class Engine:
    """The pipeline, stepped by hand, so that a first token is seen when it is there."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Load the model.

        `job["options"]`: `quantization` (see `prepare`), fields of SchedulerConfig, and properties of the CPU plugin,
        which are in upper case. The cache has the model's precision unless KV_CACHE_PRECISION says otherwise; with
        int8 weights the plugin chooses.
        """
        import numpy
        import openvino  # type: ignore[import-not-found]
        import openvino_genai  # type: ignore[import-not-found]

        self.version = openvino_genai.__version__
        self._genai, self._tensor, self._array = openvino_genai, openvino.Tensor, numpy.array
        options = {name: value for name, value in job["options"].items() if name != "quantization"}
        precision = _PRECISIONS[job["dtype"]]
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": job["threads"]}
        if "quantization" not in job["options"]:
            properties["KV_CACHE_PRECISION"] = precision
        settings: dict[str, Any] = {
            "max_num_batched_tokens": _STEP_TOKENS,
            "max_num_seqs": min(job["num_requests"], 256),
            "cache_size": _CACHE_GIB,
            "dynamic_split_fuse": True,
            "enable_prefix_caching": True,
        }
        for name, value in options.items():
            (properties if name.isupper() else settings)[name] = value
        scheduler = openvino_genai.SchedulerConfig()
        for name, value in settings.items():
            getattr(scheduler, name)  # an unknown field raises here
            setattr(scheduler, name, value)
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(job["model"], scheduler, "CPU", properties)
        self._running: dict[int, tuple[Any, list[int], float | None]] = {}

    def begin(self) -> None:
        """Nothing to start."""

    def submit(self, key: int, prompt: list[int], max_tokens: int) -> None:
        """Start a request."""
        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = max_tokens, True, False
        config.set_eos_token_id(0)  # ignored; a model without one would bring -1, which is refused
        handle = self._pipeline.add_request(key, self._tensor(self._array([prompt], dtype="int64")), config)
        self._running[key] = (handle, [], None)

    def collect(self) -> list[tuple[int, list[int], float | None]]:
        """One step."""
        self._pipeline.step()
        done = []
        for key, (handle, tokens, first_at) in list(self._running.items()):
            while handle.can_read():
                for output in handle.read().values():
                    tokens.extend(output.generated_ids)
                first_at = first_at or time.perf_counter()
            self._running[key] = (handle, tokens, first_at)
            status = handle.get_status()
            if status == self._genai.GenerationStatus.FINISHED:
                done.append((key, tokens, first_at))
                del self._running[key]
            elif status != self._genai.GenerationStatus.RUNNING:
                raise RuntimeError(f"request {key} ended as {status}: the cache is too small for it, or it was dropped")
        return done

    def end(self) -> None:
        """It only computes when it is stepped."""

    def steps(self) -> dict[str, list[float]]:
        """It does not tell."""
        return {}


load = Engine
