"""A split step as a table for people and as JSON for programs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from headrace.bench.report import NOISY_CORES, grid
from headrace.bench.step.measure import StepSplit
from headrace.bench.step.stopwatch import Part
from headrace.observability import machine


def to_text(title: str, split: StepSplit) -> str:
    """Headline and table. A limit is what reading the bytes and doing the operations takes at least."""
    shape, roofline, cpu = split.shape, split.roofline, machine.cpu()
    kind = (
        f"{shape.batch} prompts of {shape.context} tokens"
        if shape.prefill
        else (f"{shape.batch} decodes at {shape.context} tokens of context")
    )
    header = ["part", "ms", "share", "calls", "MB", "GFLOP", "limit ms", "× limit"]
    rows = [_row(name, part, split.total_s) for name, part in split.parts.items()]
    rows.append(_row("step", _sum(split.parts), split.total_s))
    disturbed = (split.other_cores or 0.0) > NOISY_CORES
    warning = f"DISTURBED: other programs kept {split.other_cores or 0.0:.1f} cores busy meanwhile; measure again"
    return "\n".join(
        [
            f"{title}: {kind}; median of {shape.steps} steps",
            f"{cpu['model']}, {cpu['num_usable_cores']} cores; attention {split.attention}; surgery: {split.surgery}",
            f"roofline on the spot: {roofline.bytes_per_s / 1e9:,.1f} GB/s read, "
            f"{roofline.operations_per_s / 1e9:,.0f} GFLOP/s in products",
            "",
            grid([header, *rows]),
            "",
            f"without the stopwatch a step takes {split.plain_s * 1e3:.2f} ms: "
            f"{shape.num_tokens / split.plain_s:,.0f} tokens/s",
            *([warning] if disturbed else []),
        ]
    )


def to_json(title: str, split: StepSplit, command: list[str]) -> dict[str, Any]:
    """Everything, in seconds, bytes and operations."""
    shape = split.shape
    return {
        "machine": {"cpu": machine.cpu(), "memory": machine.memory(), "platform": platform.platform()},
        "command": command,
        "model": title,
        "batch": shape.batch,
        "context": shape.context,
        "prefill": shape.prefill,
        "num_steps": shape.steps,
        "attention": split.attention,
        "surgery": split.surgery,
        "roofline": {
            "bytes_per_s": split.roofline.bytes_per_s,
            "operations_per_s": split.roofline.operations_per_s,
        },
        "other_cores": split.other_cores,
        "step_s": split.total_s,
        "plain_step_s": split.plain_s,
        "parts": {
            name: {
                "seconds": part.seconds,
                "calls": part.calls,
                "bytes": part.cost.num_bytes,
                "operations": part.cost.operations,
                "limit_s": part.limit_s,
                "ratio": part.seconds / part.limit_s if part.limit_s else None,
            }
            for name, part in split.parts.items()
        },
    }


def _row(name: str, part: Part, total_s: float) -> list[str]:
    cost = part.cost
    return [
        name,
        f"{part.seconds * 1e3:.3f}",
        f"{part.seconds / total_s:.0%}",
        str(part.calls) if part.calls else "",
        f"{cost.num_bytes / 1e6:,.1f}" if cost.num_bytes else "",
        f"{cost.operations / 1e9:,.2f}" if cost.operations else "",
        f"{part.limit_s * 1e3:.3f}" if part.limit_s else "",
        f"{part.seconds / part.limit_s:.2f}" if part.limit_s else "",
    ]


def _sum(parts: Mapping[str, Part]) -> Part:
    total = Part()
    for part in parts.values():
        total.seconds += part.seconds
        total.calls += part.calls
        total.cost += part.cost
        total.limit_s += part.limit_s
    return total
