"""Everything that a GPU is needed for, in one command and ten minutes: tests, step times, offline256.

    PYTHONPATH=src python benchmarks/gpu.py --out gpu.json

Needs torch (a CUDA build), transformers, safetensors and numpy, no more. Every part runs in a process of its own, in
order of importance, until the time is over; a part that fails or hangs costs its own figures alone. The JSON file is
written anew after each, and has the table for benchmarks/gpu.md under "table".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

BATCHES = (1, 8, 32, 128, 256)
CONTEXT, STEPS = 1100, 32
VARIANTS: dict[str, dict[str, Any]] = {
    "in step, no graphs": {"async_scheduling": False, "use_cuda_graph": False},
    "ahead, no graphs": {"async_scheduling": True, "use_cuda_graph": False},
    "in step, graphs": {"async_scheduling": False},
    "ahead, graphs": {},
    "ahead, graphs, compiled": {"compile_mode": "default"},
    "ahead, graphs, no surgery": {"surgery": False},
}
DEFAULT = "ahead, graphs"

# Part, shape, variant, seconds that it may take. The first ones are those that the table asks for.
PLAN: list[tuple[str, str, str, int]] = [
    ("machine", "", "", 60),
    ("cases", "", "", 150),
    ("steps", "M", DEFAULT, 90),
    ("offline256", "M", DEFAULT, 90),
    ("steps", "L", DEFAULT, 120),
    ("offline256", "L", DEFAULT, 120),
    ("steps", "M", "ahead, graphs, compiled", 120),
    ("steps", "M", "in step, no graphs", 60),
    ("steps", "M", "in step, graphs", 60),
    ("steps", "M", "ahead, no graphs", 60),
    ("beside", "M", "", 90),
    ("steps", "M", "ahead, graphs, no surgery", 60),
    ("offline256", "M", "ahead, graphs, compiled", 120),
]


def main() -> int:
    """Run the plan, or one part of it (in a process of its own)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where everything is written (%(default)s)")
    parser.add_argument("--seconds", type=float, default=570.0, help="for all of it (%(default)s)")
    parser.add_argument("--only", action="append", metavar="PART", help="steps, offline256, cases, beside, machine")
    parser.add_argument("--shapes", default="M,L", help="of M and L (%(default)s)")
    parser.add_argument("--part", nargs=3, metavar=("PART", "SHAPE", "VARIANT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        return run_part(*arguments.part)
    results: list[dict[str, Any]] = []
    deadline = time.monotonic() + arguments.seconds
    for part, shape, variant, most_s in PLAN:
        is_wanted = (arguments.only is None or part in arguments.only) and shape in ("", *arguments.shapes.split(","))
        if not is_wanted:
            continue
        left_s = deadline - time.monotonic()
        result: dict[str, Any] = {"part": part, "shape": shape, "variant": variant}
        if left_s < 15:
            result["error"] = "no time was left"
        else:
            result.update(in_a_process(part, shape, variant, min(most_s, left_s)))
        results.append(result)
        print(json.dumps({**result, "log": None}), flush=True)
        written = {"command": sys.argv, "results": results, "table": table(results)}
        arguments.out.write_text(json.dumps(written, indent=1) + "\n")
    print("\n" + table(results))
    return 1 if any("error" in result for result in results) else 0


def in_a_process(part: str, shape: str, variant: str, timeout_s: float) -> dict[str, Any]:
    """What the part's process said last, or what became of it."""
    command = [sys.executable, __file__, "--part", part, shape, variant]
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        tail = error.stderr or b""
        text = tail if isinstance(tail, str) else tail.decode(errors="replace")
        return {"error": f"not over after {timeout_s:.0f} s", "log": text[-2000:]}
    found: dict[str, Any] = {"seconds": round(time.monotonic() - begin, 1)}
    try:
        found.update(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, json.JSONDecodeError):
        found["error"] = f"it ended with {done.returncode} and said nothing"
    if "error" in found:
        found["log"] = done.stderr[-3000:]
    return found


def run_part(part: str, shape: str, variant: str) -> int:
    """Measure, and print the result as the last line."""
    parts = {"machine": machine, "cases": cases, "steps": steps, "offline256": offline, "beside": beside}
    try:
        result = parts[part](shape, variant)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
    return 0


def machine(_shape: str, _variant: str) -> dict[str, Any]:
    """What it is measured on."""
    import torch
    import transformers

    from headrace.bench.step.ladder import device_bytes_per_s

    device = _device()
    found = {"torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return {**found, "bytes_per_s": device_bytes_per_s(device)}


def cases(_shape: str, _variant: str) -> dict[str, Any]:
    """The tests that need a GPU; what failed, in words."""
    from tests.device.gpu_cases import CASES

    outcomes = {}
    for name, case in CASES.items():
        try:
            case()
            outcomes[name] = "passed"
        except Exception as error:
            traceback.print_exc()
            outcomes[name] = f"{type(error).__name__}: {error}"[:600]
    failed = [name for name, outcome in outcomes.items() if outcome != "passed"]
    return {"cases": outcomes, **({"error": f"failed: {', '.join(failed)}"} if failed else {})}


def steps(shape: str, variant: str) -> dict[str, Any]:
    """Whole decode steps at each batch size, and the limit of the memory."""
    from dataclasses import asdict

    from headrace.bench.step.ladder import climb, device_bytes_per_s, open_engine
    from headrace.bench.step.measure import StepShape

    shapes = [StepShape(batch, CONTEXT, STEPS) for batch in BATCHES]
    bytes_per_s = device_bytes_per_s(_device())
    begin = time.monotonic()
    engine = open_engine(_model(shape), "auto", shapes, VARIANTS[variant])
    start_s = time.monotonic() - begin
    rungs = climb(engine, shapes, bytes_per_s, lambda line: print(line, file=sys.stderr, flush=True))
    attention, surgery = engine.config.attn_implementation, str(engine.surgery)
    return {
        "start_s": start_s, "attention": attention, "surgery": surgery, "rungs": [asdict(rung) for rung in rungs],
    }  # fmt: skip


def offline(shape: str, variant: str) -> dict[str, Any]:
    """256 requests at once: twice, the first run to warm up and to have the graphs captured after it."""
    from headrace import LLM, SamplingParams
    from headrace.bench.workloads import workload

    load = workload("offline256")
    settings = {"max_num_seqs": 256, "max_model_len": load.max_model_len, **VARIANTS[variant]}
    begin = time.monotonic()
    rates: list[float] = []
    with LLM(_model(shape), **settings) as llm:
        first = llm.generate([[5, 6, 7]], SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
        first_token_s = time.monotonic() - begin
        assert first[0].error is None, first[0].error
        while llm._client.call(lambda core: core.prepare(), 300.0):
            pass
        ready_s = time.monotonic() - begin
        prompts = [list(request.prompt_token_ids) for request in load.requests]
        params = [SamplingParams(temperature=0.0, max_tokens=r.max_tokens, ignore_eos=True) for r in load.requests]
        for _ in range(2):
            start = time.monotonic()
            outputs = llm.generate(prompts, params)
            rates.append(load.num_output_tokens / (time.monotonic() - start))
            errors = [str(output.error) for output in outputs if output.error is not None]
            if errors:
                raise RuntimeError(f"{len(errors)} requests failed: {errors[0]}")
            assert sum(len(o.outputs[0].token_ids) for o in outputs) == load.num_output_tokens
        counters = llm.dump_state()["counters"]
    return {"tokens_per_s": rates, "first_token_s": first_token_s, "ready_s": ready_s, "counters": counters}


def beside(shape: str, _variant: str) -> dict[str, Any]:
    """The same steps in transformers' own continuous batching."""
    from headrace.bench.step.beside import transformers_step_s
    from headrace.bench.step.measure import StepShape

    model = _model(shape)
    found: dict[str, Any] = {}
    for batch in BATCHES:
        try:
            found[str(batch)] = transformers_step_s(model, StepShape(batch, CONTEXT, STEPS), timeout_s=40.0)
        except Exception as error:
            found[str(batch)] = f"{type(error).__name__}: {error}"[:300]
            break  # larger ones will not do better
    return {"step_s": found}


def _device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _model(name: str) -> Any:
    """A shape's model with random weights in bfloat16, made where it runs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from headrace.bench.shapes import shape

    wanted = shape(name)
    torch.manual_seed(0)
    with _device():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(wanted.model_type, **wanted.config), dtype=torch.bfloat16
        )
    return model.eval()


def table(results: list[dict[str, Any]]) -> str:
    """What there is, as the tables of benchmarks/gpu.md; nothing stands where nothing was measured."""
    lines = ["| shape | variant | " + " | ".join(f"batch {b}, ms (× limit)" for b in BATCHES) + " |"]
    lines.append("|---" * (2 + len(BATCHES)) + "|")
    for result in results:
        if result["part"] == "steps" and "rungs" in result:
            cells = [_rung(rung) for rung in result["rungs"]]
            lines.append(f"| {result['shape']} | {result['variant']} | " + " | ".join(cells) + " |")
        if result["part"] == "beside" and "step_s" in result:
            found = [result["step_s"].get(str(b), "") for b in BATCHES]
            cells = [f"{s * 1e3:.2f}" if isinstance(s, float) else "" for s in found]
            lines.append(f"| {result['shape']} | transformers generate_batch | " + " | ".join(cells) + " |")
    lines += ["", "| shape | variant | offline256, tok/s | first token, s | graphs ready, s |", "|---|---|---|---|---|"]
    for result in results:
        if result["part"] == "offline256" and "tokens_per_s" in result:
            best = max(result["tokens_per_s"])
            times = f"{result['first_token_s']:.1f} | {result['ready_s']:.1f}"
            lines.append(f"| {result['shape']} | {result['variant']} | {best:,.0f} | {times} |")
    for result in results:
        if "cases" in result:
            lines += ["", *(f"- {name}: {outcome}" for name, outcome in result["cases"].items())]
        if "error" in result:
            lines.append(f"- {result['part']} {result['shape']} {result['variant']}: {result['error']}")
    return "\n".join(lines)


def _rung(rung: dict[str, Any]) -> str:
    if rung["step_s"] is None:
        return ""
    return f"{rung['step_s'] * 1e3:.2f} ({rung['step_s'] / rung['limit_s']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
