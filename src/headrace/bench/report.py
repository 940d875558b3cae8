"""A comparison as a table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any

from headrace import __version__
from headrace.bench.comparison import Conditions
from headrace.bench.results import EngineResult, Measurement, Spread
from headrace.observability import machine

NOISY_CORES = 0.1
"""More than so many cores busy with something else, and the figures are called disturbed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A comparison with all that is needed to judge it.

    Attributes:
        shape: name of the model shape. left_out: engines that were not run, and why.
        baseline: name of the engine that ratios and agreement refer to.
        command: that repeats it.
    """

    shape: str
    conditions: Conditions
    results: Sequence[EngineResult]
    left_out: dict[str, str]
    baseline: str
    command: Sequence[str]

    def text(self) -> str:
        """Headline, tables, and what has to be known to read them."""
        parts = [self._headline()]
        parts += [self._table(level) for level in self.conditions.levels]
        if len(self.conditions.levels) > 1:
            parts.append(self._sweep())
        parts += [line for result in self.results if (line := _steps_line(result, self.conditions.levels[-1]))]
        parts += [f"{result.name} failed: {result.failure}" for result in self.results if result.failure]
        parts += [f"{name} left out: {reason}" for name, reason in self.left_out.items()]
        parts += self._warnings()
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Everything, with each repeat; token ids are left out."""
        workload = self.conditions.workload
        return {
            "machine": {"cpu": machine.cpu(), "memory": machine.memory(), "platform": platform.platform()},
            "versions": {"headrace": __version__, "python": platform.python_version()},
            "command": list(self.command),
            "shape": self.shape,
            "dtype": self.conditions.dtype,
            "threads": self.conditions.threads,
            "workload": {
                "name": workload.name,
                "seed": workload.seed,
                "num_requests": len(workload.requests),
                "num_prompt_tokens": workload.num_prompt_tokens,
                "num_output_tokens": workload.num_output_tokens,
            },
            "baseline": self.baseline,
            "engines": [self._engine_json(result) for result in self.results],
            "left_out": self.left_out,
        }

    # ---------------------------------------------------------------- the text

    def _headline(self) -> str:
        workload, cpu, total = self.conditions.workload, machine.cpu(), machine.memory()["total_bytes"]
        memory = f", {total / 2**30:.0f} GiB" if total else ""
        sets = [name for name, there in (cpu["instruction_sets"] or {}).items() if there]
        return (
            f"{workload.name} (seed {workload.seed}): {len(workload.requests)} requests, "
            f"{workload.num_prompt_tokens:,} prompt and {workload.num_output_tokens:,} output tokens\n"
            f"shape {self.shape}, {self.conditions.dtype}, {self.conditions.threads} threads, median "
            f"[least..most] of {self.conditions.repeats}\n"
            f"{cpu['model']}, {cpu['num_usable_cores']} cores{memory}, {' '.join(sets)}"
        )

    def _table(self, level: int) -> str:
        header = ["engine", "version", "tok/s", f"× {self.baseline}", "TTFT s", "E2E s", "same tokens"]
        rows = [self._row(result, level) for result in self.results]
        return f"\n{level} requests at a time\n{grid([header, *rows])}\n"

    def _row(self, result: EngineResult, level: int) -> list[str]:
        rate = result.rate(level)
        if rate is None:
            return [result.name, result.version or "", "failed", "", "", "", ""]
        base = self._base()
        agreement = self._agreement(result, level)
        return [
            result.name + (" (failed later)" if result.failure else ""),
            result.version or "",
            _spread(rate, ",.1f"),
            _spread(result.ratio(base, level), ".2f") if base and base is not result else "1" if base else "",
            _number(result.latency(level, "ttft_s"), ".2f"),
            _number(result.latency(level, "e2e_s"), ".2f"),
            _number(agreement, ".0%"),
        ]

    def _sweep(self) -> str:
        """Tokens per second by concurrency; a level whose best is under the last one's worst is marked."""
        rows = [["requests at a time", *(result.name for result in self.results)]]
        for before, level in zip((None, *self.conditions.levels), self.conditions.levels, strict=False):
            cells = [str(level)]
            for result in self.results:
                rate, last = result.rate(level), result.rate(before) if before else None
                falls = rate is not None and last is not None and rate.high < last.low
                cells.append(_number(rate.median if rate else None, ",.1f") + (" falls" if falls else ""))
            rows.append(cells)
        return f"tok/s by concurrency\n{grid(rows)}\n"

    def _warnings(self) -> list[str]:
        others = [run.other_cores for run in _runs(self.results) if run.other_cores is not None]
        if not others or max(others) <= NOISY_CORES:
            return []
        return [
            f"DISTURBED: other programs kept up to {max(others):.1f} cores busy meanwhile; compare ratios, not figures"
        ]

    # ---------------------------------------------------------------- both

    def _base(self) -> EngineResult | None:
        return next((result for result in self.results if result.name == self.baseline and result.runs), None)

    def _agreement(self, result: EngineResult, level: int) -> float | None:
        """In float32 alone: with fewer digits two right engines differ as well."""
        base = self._base()
        if base is None or base is result or self.conditions.dtype != "float32":
            return None
        return result.agreement(base, level)

    def _engine_json(self, result: EngineResult) -> dict[str, Any]:
        return {
            "name": result.name,
            "version": result.version,
            "load_s": result.load_s,
            "failure": result.failure,
            "levels": [self._level_json(result, level) for level in self.conditions.levels if level in result.runs],
        }

    def _level_json(self, result: EngineResult, level: int) -> dict[str, Any]:
        base = self._base()
        return {
            "concurrency": level,
            "tokens_per_s": _spread_json(result.rate(level)),
            "ratio": _spread_json(result.ratio(base, level)) if base else None,
            "same_tokens_ratio": self._agreement(result, level),
            "ttft_s": result.latency(level, "ttft_s"),
            "e2e_s": result.latency(level, "e2e_s"),
            "step_s": {name: {"median": m, "p99": p} for name, (m, p) in result.step_parts(level).items()},
            "repeats": [_run_json(run) for run in result.runs[level]],
        }


def _runs(results: Sequence[EngineResult]) -> list[Measurement]:
    return [run for result in results for runs in result.runs.values() for run in runs]


def _run_json(run: Measurement) -> dict[str, Any]:
    return {
        "seconds": run.seconds,
        "tokens_per_s": run.tokens_per_s,
        "ttft_s": list(run.ttft_s),
        "e2e_s": list(run.e2e_s),
        "cpu_s": run.cpu_s,
        "other_cores": run.other_cores,
    }


def _spread_json(spread: Spread | None) -> dict[str, float] | None:
    return dataclasses.asdict(spread) if spread else None


def _spread(spread: Spread | None, spec: str) -> str:
    return f"{spread.median:{spec}} [{spread.low:{spec}}..{spread.high:{spec}}]" if spread else ""


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else f"{value:{spec}}"


def _steps_line(result: EngineResult, level: int) -> str:
    parts = result.step_parts(level)
    if not parts:
        return ""
    shown = ", ".join(f"{name} {m * 1e3:.2f} ({p * 1e3:.2f})" for name, (m, p) in parts.items())
    return f"{result.name}, ms of a step at {level} requests, median (99th percentile): {shown}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first one to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
