"""A run for people, and as JSON with the keys of vLLM's benchmark, which tools for plots and comparisons read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.bench.serve.records import METRICS, PERCENTILES, Record, Summary

_BARS = " ▁▂▃▄▅▆▇█"
_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}


@dataclass(frozen=True, slots=True)
class Header:
    """What was run, for the head of the report."""

    date: str
    model: str
    endpoint: str
    rate: float
    end_rate: float | None
    burstiness: float
    max_concurrency: int | None
    seed: int
    most_under_way: int
    limits_ms: Mapping[str, float]


def text(header: Header, summary: Summary, width: int = 60) -> str:
    """The report for a terminal."""
    ok, duration = summary.count("ok"), max(summary.duration_s, 1e-9)
    rate = "at once" if math.isinf(header.rate) else f"{header.rate:g}{_to(header.end_rate)} requests/s"
    at_a_time = f", at most {header.max_concurrency} at a time" if header.max_concurrency else ""
    lines = [
        f"{header.model} by {header.endpoint}: {len(summary.records)} requests {rate}{at_a_time}, seed {header.seed}",
        f"{ok} answered, {summary.count('rejected')} rejected, {summary.count('error')} failed, "
        f"{summary.count('cancelled')} cancelled, in {summary.duration_s:.2f} s; "
        f"up to {header.most_under_way} at a time",
        f"{ok / duration:,.2f} requests/s, {summary.num_output_tokens / duration:,.1f} output tokens/s, "
        f"{(summary.num_prompt_tokens + summary.num_output_tokens) / duration:,.1f} tokens/s with prompts "
        f"({summary.num_cached_tokens:,} of {summary.num_prompt_tokens:,} prompt tokens from the cache)",
    ]
    if summary.num_good is not None:
        limits = ", ".join(f"{_TITLES[name]} ≤ {limit:g} ms" for name, limit in header.limits_ms.items())
        lines.append(f"goodput ({limits}): {summary.num_good / duration:,.2f} requests/s, {summary.num_good} requests")
    lines += ["", *_table(summary), "", *_plots(summary, width)]
    if errors := Counter(record.error for record in summary.records if record.error):
        lines += ["", "what went wrong:"]
        lines += [f"  {count} × {error}" for error, count in errors.most_common(5)]
    return "\n".join(lines)


def _to(end_rate: float | None) -> str:
    return "" if end_rate is None else f" to {end_rate:g}"


def _table(summary: Summary) -> list[str]:
    names = ["mean", *(f"p{p}" for p in PERCENTILES)]
    lines = ["ms    " + "".join(f"{name:>11}" for name in names)]
    for metric in METRICS:
        spread = summary.spreads[metric]
        values = [spread.mean_ms, *spread.percentiles_ms.values()]
        lines.append(f"{_TITLES[metric]:<6}" + "".join(f"{value:>11,.2f}" for value in values))
    return lines


def _plots(summary: Summary, width: int) -> list[str]:
    arrivals = [moment for record in summary.records for moment in record.event_s]
    rates = per_interval(arrivals, summary.duration_s, width)
    first = [record.ttft_s * 1e3 for record in summary.records if record.event_s]
    lines = []
    if any(rates):
        lines.append(f"pieces/s  {bars(rates)}  most {max(rates) * width / summary.duration_s:,.0f}")
    if first:
        top = max(first)
        counts = per_interval(first, top, width)
        lines.append(f"TTFT      {bars(counts)}  0 to {top:,.0f} ms")
    return lines


def per_interval(values: Sequence[float], end: float, count: int) -> list[int]:
    """How many values lie in each of `count` equal intervals from 0 to `end`."""
    counts = [0] * count
    for value in values:
        counts[min(max(int(value / end * count), 0), count - 1) if end > 0 else 0] += 1
    return counts


def bars(values: Sequence[float]) -> str:
    """One character per value; whatever is not zero is seen."""
    top = max(values, default=0) or 1
    return "".join(_BARS[min(math.ceil(value / top * (len(_BARS) - 1)), len(_BARS) - 1)] for value in values)


def as_json(header: Header, summary: Summary) -> dict[str, Any]:
    """The keys and units of `vllm bench serve --save-result`; what that does not count has keys of its own."""
    duration = max(summary.duration_s, 1e-9)
    records = summary.records
    ok = summary.count("ok")
    result: dict[str, Any] = {
        "date": header.date,
        "endpoint_type": header.endpoint,
        "backend": header.endpoint,
        "label": None,
        "model_id": header.model,
        "tokenizer_id": None,
        "num_prompts": len(records),
        "request_rate": "inf" if math.isinf(header.rate) else header.rate,
        "ramp_up_end_rps": header.end_rate,
        "burstiness": header.burstiness if math.isfinite(header.burstiness) else "inf",
        "max_concurrency": header.max_concurrency,
        "seed": header.seed,
        "duration": summary.duration_s,
        "completed": ok,
        "failed": summary.count("error") + summary.count("rejected"),
        "rejected": summary.count("rejected"),
        "cancelled": summary.count("cancelled"),
        "total_input_tokens": summary.num_prompt_tokens,
        "total_cached_tokens": summary.num_cached_tokens,
        "total_output_tokens": summary.num_output_tokens,
        "request_throughput": ok / duration,
        "request_goodput": None if summary.num_good is None else summary.num_good / duration,
        "output_throughput": summary.num_output_tokens / duration,
        "total_token_throughput": (summary.num_prompt_tokens + summary.num_output_tokens) / duration,
        "max_concurrent_requests": header.most_under_way,
        **_each(records),
    }
    for metric in METRICS:
        spread = summary.spreads[metric]
        result[f"mean_{metric}_ms"] = spread.mean_ms
        result[f"median_{metric}_ms"] = spread.median_ms
        result[f"std_{metric}_ms"] = spread.std_ms
        result |= {f"p{percent}_{metric}_ms": value for percent, value in spread.percentiles_ms.items()}
    return result


def _each(records: Sequence[Record]) -> dict[str, list[Any]]:
    """What was measured of each request, in the order of their sending."""
    return {
        "input_lens": [record.num_prompt_tokens for record in records],
        "output_lens": [record.num_output_tokens for record in records],
        "start_times": [record.sent_s for record in records],
        "ttfts": [None if math.isnan(record.ttft_s) else record.ttft_s for record in records],
        "itls": [record.itl_s for record in records],
        "generated_texts": [record.text for record in records],
        "errors": [record.error for record in records],
    }
