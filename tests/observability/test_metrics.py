"""The set of metrics is fixed, Prometheus can read it, and its numbers are those that were counted."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from headrace.errors import QueueFull, Unauthorized
from headrace.observability.histogram import Histogram
from headrace.observability.metric_table import METRICS
from headrace.observability.metrics import ServerMetrics
from headrace.observability.request_record import RequestRecord
from tests.observability.readings import reading

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `([\w:]+)` \| (\w+) \| ([\w, ]*) \| .* \| (.*) \|$", re.MULTILINE)


class Limits(NamedTuple):
    num_blocks: int = 100
    block_size: int = 32
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512


def metrics() -> ServerMetrics:
    return ServerMetrics("builtin", "9.9", CollectorRegistry())


def busy() -> ServerMetrics:
    """Metrics with a value for everything that a CPU has."""
    made = metrics()
    made.engine_started(Limits())
    made.engine_ready(True)
    made.engine_stats(reading(device_used_bytes=1, device_total_bytes=2, device_utilisation_ratio=0.5))
    made.request_received("/v1/completions")
    made.http_response("/v1/completions", 200)
    made.request_rejected(QueueFull("full"))
    return made


def record(**changes: Any) -> RequestRecord:
    values: dict[str, Any] = {"request_id": "r", "endpoint": "/v1/completions", "model": "builtin", "identity": "alice",
                              "status": 200, "e2e_s": 1.0}  # fmt: skip
    return RequestRecord(**{**values, **changes})


def samples(made: ServerMetrics) -> dict[tuple[str, str], float]:
    """Values by name and by labels but the model's, as `name=value,…`."""
    values = {}
    for family in text_string_to_metric_families(made.render()[0].decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if not k.startswith("model"))
            assert (sample.name, labels) not in values, "a series stands there twice"
            values[sample.name, labels] = sample.value
    return values


def exposed(made: ServerMetrics) -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of each family, under the name that counters have in queries."""
    families = {}
    for family in text_string_to_metric_families(made.render()[0].decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + "_total" if family.type == "counter" else family.name
        families[name] = (family.type, labels)
    return families


def test_the_set_of_names_kinds_and_labels_is_that_of_the_document() -> None:
    documented = {}
    for name, kind, labels, aliases in ROW.findall(DOCS.read_text()):
        own = {"model_name" if name.startswith("vllm:") else "model", *filter(None, labels.split(", "))}
        documented[name] = (kind, own)
        renamed = {"finished_reason" if label == "reason" else label for label in own - {"model"}} | {"model_name"}
        documented |= dict.fromkeys(re.findall(r"`([\w:]+)`", aliases), (kind, renamed))
    shown = {name: family for name, family in exposed(busy()).items() if not name.startswith("process_")}
    assert shown == documented
    assert len(documented) > 60 and len([name for name in documented if name.startswith("vllm:")]) > 20


def test_the_set_of_names_does_not_change_while_a_server_runs() -> None:
    assert set(exposed(metrics())) == set(exposed(busy()))


def test_names_follow_prometheus_rules() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"(headrace_|vllm:)[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".") and list(metric.buckets) == sorted(set(metric.buckets))
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert not re.search(r"_(ms|millis|percent|kb|mb)\b", metric.name), "base units only"
        assert not {"le", "quantile", "model"} & set(metric.labels)


def test_names_that_dashboards_and_routers_of_vllm_read() -> None:
    names = exposed(busy())
    for name in (
        "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "gpu_cache_usage_perc",
        "prompt_tokens_total", "generation_tokens_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
        "time_per_output_token_seconds", "e2e_request_latency_seconds", "request_success_total",
        "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total", "request_queue_time_seconds",
        "cache_config_info",
    ):  # fmt: skip
        assert f"vllm:{name}" in names


def test_openmetrics_for_who_asks_for_it() -> None:
    data, content_type = busy().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and data.endswith(b"# EOF\n")
    assert {family.name for family in parse_openmetrics(data.decode())} >= {"headrace_requests_running"}
    assert metrics().render()[1].startswith("text/plain")


def test_what_is_read_off_the_engine() -> None:
    values = samples(busy())
    for name, value in {
        "headrace_requests_running": 2, "vllm:num_requests_running": 2, "headrace_requests_waiting": 5,
        "headrace_waiting_tokens": 700, "headrace_cache_usage_ratio": 0.25, "vllm:kv_cache_usage_perc": 0.25,
        "headrace_prompt_tokens_total": 120, "vllm:prefix_cache_queries_total": 120,
        "headrace_cached_prompt_tokens_total": 30, "headrace_preemptions_total": 1,
        "headrace_cache_evictions_total": 13, "headrace_steps_total": 11,
        "headrace_step_rows_sum": 5, "headrace_step_tokens_sum": 72,
        "headrace_step_duration_seconds_count": 2, "headrace_engine_resident_memory_bytes": 2**30,
        "headrace_max_running_requests": 64, "headrace_engine_ready": 1, "headrace_engine_starts_total": 1,
        "headrace_gpu_memory_used_bytes": 1,
    }.items():  # fmt: skip
        assert values[name, ""] == value, name
    assert values["headrace_computed_tokens_total", "phase=decode"] == 40
    assert values["headrace_computed_tokens_total", "phase=prefill"] == 90
    assert values["headrace_step_phase_seconds_total", "phase=execute"] == 9.0
    assert values["vllm:cache_config_info", "block_size=32,num_gpu_blocks=100"] == 1
    assert values["headrace_build_info", "version=9.9"] == 1


def test_steps_add_up_over_readings_and_what_a_cpu_has_not_is_absent() -> None:
    made = busy()
    made.engine_stats(reading())
    values = samples(made)
    assert values["headrace_step_rows_count", ""] == 4
    assert ("headrace_gpu_memory_used_bytes", "") not in values


def test_the_life_of_a_request() -> None:
    made = metrics()
    made.request_received("/v1/chat/completions")
    made.stream_opened()
    made.first_token(0.05)
    made.tokens(1, 0.01)
    made.tokens(3, 0.03)
    assert samples(made)["headrace_streams_open", ""] == 1
    made.stream_closed()
    made.request_finished(
        record(e2e_s=0.45, queued_s=0.01, prefill_s=0.03, ttft_s=0.05, num_prompt_tokens=7, num_output_tokens=5,
               finish_reasons=("stop", "cancelled"))
    )  # fmt: skip
    values = samples(made)
    assert values["headrace_output_tokens_total", ""] == values["vllm:generation_tokens_total", ""] == 5
    assert values["headrace_time_to_first_token_seconds_sum", ""] == 0.05
    assert values["headrace_inter_token_latency_seconds_count", ""] == 2
    assert values["vllm:time_per_output_token_seconds_bucket", "le=0.01"] == 1
    assert values["headrace_request_decode_seconds_sum", ""] == pytest.approx(0.4)
    assert values["headrace_time_per_output_token_seconds_sum", ""] == pytest.approx(0.4 / 1.5)
    assert values["headrace_requests_finished_total", "reason=stop"] == 1
    assert values["vllm:request_success_total", "finished_reason=abort"] == 1
    assert values["headrace_streams_open", ""] == 0
    assert values["headrace_request_prompt_tokens_bucket", "le=8.0"] == 1


def test_a_request_that_never_ran_is_in_no_histogram_of_times_it_never_had() -> None:
    made = metrics()
    made.request_finished(record(finish_reasons=("error",)))
    values = samples(made)
    assert values["headrace_request_duration_seconds_count", ""] == 1
    assert values["headrace_request_queue_seconds_count", ""] == 0
    assert values["headrace_time_per_output_token_seconds_count", ""] == 0


def test_rejections_by_the_code_of_their_error() -> None:
    made = metrics()
    assert samples(made)["headrace_requests_rejected_total", "reason=queue_full"] == 0
    made.request_rejected(QueueFull("full"))
    made.request_rejected(Unauthorized("no"))
    values = samples(made)
    assert values["headrace_requests_rejected_total", "reason=queue_full"] == 1
    assert values["headrace_requests_rejected_total", "reason=unauthorized"] == 1


def test_labels_are_bounded_whatever_is_counted() -> None:
    made = metrics()
    for number in range(1000):
        made.http_response(f"/{number}", 200)
    made.request_finished(record(finish_reasons=("something new",)))
    values = samples(made)
    series = [labels for name, labels in values if name == "headrace_http_responses_total"]
    assert len(series) <= 101
    assert values["headrace_http_responses_total", "endpoint=other,status=other"] == 900
    assert values["headrace_requests_finished_total", "reason=other"] == 1


def test_a_models_name_may_be_anything() -> None:
    made = ServerMetrics('a"b\\c\nd', "1", CollectorRegistry())
    (family,) = (
        f for f in text_string_to_metric_families(made.render()[0].decode()) if f.name == "headrace_build_info"
    )
    assert family.samples[0].labels["model"] == 'a"b\\c\nd'


@given(st.lists(st.floats(0, 20)))
def test_a_histogram_counts_as_prometheus_says(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in (0.5, 1.0, 10.0, float("inf"))]
    assert histogram.cumulative() == expected
    assert histogram.total == pytest.approx(sum(values))


def test_what_is_counted_for_every_token_is_cheap() -> None:
    made = metrics()
    best_us = float("inf")
    for _ in range(5):
        start_s = time.process_time()
        for _ in range(20_000):
            made.tokens(1, 0.02)
        best_us = min(best_us, (time.process_time() - start_s) / 20_000 * 1e6)
    assert best_us < 2, f"{best_us:.2f} µs a token"
