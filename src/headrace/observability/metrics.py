"""What a server counts, and how Prometheus gets it.

Plain integers and lists, changed by the server's one thread, are read when a scrape asks for them: what is counted for
every token costs a fraction of a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headrace.errors import HeadraceError, QueueFull
from headrace.observability.families import Family, Labels, alias_families, family_of
from headrace.observability.histogram import Histogram
from headrace.observability.metric_table import METRICS, Metric
from headrace.observability.readings import EngineLimits, EngineReading
from headrace.observability.request_record import RequestRecord

FINISH_REASONS = ("stop", "length", "tool_calls", "cancelled", "error")

_MAX_LABEL_VALUES = 100
_OTHER = "other"


class ServerMetrics(Collector):
    """All metrics of one server; every method is called on the server's thread."""

    def __init__(self, model: str, version: str, registry: CollectorRegistry) -> None:
        """Count nothing yet; `registry` gets these metrics and those of the process."""
        self._model = model
        self._registry = registry
        self._reading: EngineReading | None = None
        self._limits: EngineLimits | None = None
        self._counts: dict[str, dict[Labels, float]] = {
            m.name: {} if m.labels else {(): 0.0}
            for m in METRICS
            if m.kind != "histogram" and m.engine is None and m.limit is None
        }
        self._histograms = {m.name: Histogram(m.buckets) for m in METRICS if m.kind == "histogram"}
        self._num_output_tokens = 0
        self._token_gaps = self._histograms["headrace_inter_token_latency_seconds"]
        self._counts["headrace_build_info"][(version,)] = 1.0
        # A series that is there from the start, at zero, shows its first increase too.
        self._counts["headrace_requests_finished_total"] = {(reason,): 0.0 for reason in FINISH_REASONS}
        self._counts["headrace_requests_rejected_total"] = {(QueueFull.code,): 0.0}
        registry.register(self)
        ProcessCollector(registry=registry)

    def request_received(self, endpoint: str) -> None:
        """A request's body was read; `endpoint` is the route's pattern, never the path that was asked for."""
        self._count("headrace_requests_received_total", endpoint)

    def request_rejected(self, error: HeadraceError) -> None:
        """A request is answered with an error before it began."""
        self._count("headrace_requests_rejected_total", error.code)

    def http_response(self, endpoint: str, status: int) -> None:
        """A response was sent, whatever it is."""
        self._count("headrace_http_responses_total", endpoint, str(status))

    def ignored_fields(self, num: int) -> None:
        """Unknown fields of a request were accepted."""
        self._counts["headrace_ignored_fields_total"][()] += num

    def stream_opened(self) -> None:
        """An answer begins to be streamed."""
        self._counts["headrace_streams_open"][()] += 1

    def stream_closed(self) -> None:
        """A stream ended, whichever way."""
        self._counts["headrace_streams_open"][()] -= 1

    def first_token(self, ttft_s: float, num_tokens: int = 1) -> None:
        """A request got its first token, or tokens."""
        self._num_output_tokens += num_tokens
        self._histograms["headrace_time_to_first_token_seconds"].observe(ttft_s)

    def tokens(self, num_tokens: int, gap_s: float) -> None:
        """An answer got more tokens, `gap_s` seconds after those before. Called for every token: keep it cheap."""
        self._num_output_tokens += num_tokens
        self._token_gaps.observe(gap_s)

    def request_finished(self, record: RequestRecord) -> None:
        """A request that had begun ended, whichever way."""
        for reason in record.finish_reasons:
            self._count("headrace_requests_finished_total", reason if reason in FINISH_REASONS else _OTHER)
        for name, value in (
            ("headrace_request_duration_seconds", record.e2e_s),
            ("headrace_request_queue_seconds", record.queued_s),
            ("headrace_request_prefill_seconds", record.prefill_s),
            ("headrace_request_decode_seconds", record.decode_s),
            ("headrace_time_per_output_token_seconds", record.tpot_s),
            ("headrace_request_prompt_tokens", record.num_prompt_tokens),
            ("headrace_request_output_tokens", record.num_output_tokens),
        ):
            if value is not None:
                self._histograms[name].observe(value)

    def engine_started(self, limits: EngineLimits) -> None:
        """The engine became ready, for the first time or again."""
        self._limits = limits
        self._counts["headrace_engine_starts_total"][()] += 1
        sizes = (str(limits.block_size), str(limits.num_blocks))
        self._counts["vllm:cache_config_info"] = {sizes: 1.0}

    def engine_ready(self, is_ready: bool) -> None:
        """Whether the engine answers and makes steps."""
        self._counts["headrace_engine_ready"][()] = float(is_ready)

    def engine_stats(self, reading: EngineReading) -> None:
        """A new reading of the engine; each must be given once, as its steps are counted."""
        self._reading = reading
        seconds = self._histograms["headrace_step_duration_seconds"]
        rows = self._histograms["headrace_step_rows"]
        tokens = self._histograms["headrace_step_tokens"]
        for step in reading.steps:
            seconds.observe(step.schedule_s + step.execute_s + step.update_s)
            rows.observe(step.num_rows)
            tokens.observe(step.num_tokens)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """What /metrics answers, and its content type, for an Accept header."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterable[Family]:
        """All families, those without a value too, so that the set of names never changes."""
        self._counts["headrace_output_tokens_total"][()] = float(self._num_output_tokens)
        for metric in METRICS:
            values = self._values(metric)
            yield family_of(metric, self._model, values, self._histograms.get(metric.name))
            yield from alias_families(metric, self._model, values, self._histograms.get(metric.name))

    def _values(self, metric: Metric) -> Mapping[Labels, float]:
        if metric.kind == "histogram":
            return {}
        if metric.limit is not None:
            return {} if self._limits is None else {(): metric.limit(self._limits)}
        if metric.engine is None:
            return self._counts[metric.name]
        value = None if self._reading is None else metric.engine(self._reading)
        if value is None:
            return {}
        return {(label,): float(v) for label, v in value.items()} if isinstance(value, Mapping) else {(): float(value)}

    def _count(self, name: str, *labels: str) -> None:
        values = self._counts[name]
        if labels not in values and len(values) >= _MAX_LABEL_VALUES:
            labels = (_OTHER,) * len(labels)
        values[labels] = values.get(labels, 0.0) + 1
