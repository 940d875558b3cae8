"""prometheus_client's families of a metric, under its own name and under vLLM's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from headrace.observability.histogram import Histogram
from headrace.observability.metric_table import Metric

Labels = tuple[str, ...]
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_VLLM_LABELS = {"reason": "finished_reason"}
_VLLM_VALUES = {"cancelled": "abort"}


def family_of(metric: Metric, model: str, values: Mapping[Labels, float], histogram: Histogram | None) -> Family:
    """The family under the metric's own name."""
    model_label = "model_name" if metric.name.startswith("vllm:") else "model"
    return _family(metric, metric.name, (model_label, *metric.labels), model, values, histogram)


def alias_families(
    metric: Metric, model: str, values: Mapping[Labels, float], histogram: Histogram | None
) -> Iterator[Family]:
    """The same under vLLM's names, with its names of labels and their values."""
    labels = ("model_name", *(_VLLM_LABELS.get(label, label) for label in metric.labels))
    renamed = {tuple(_VLLM_VALUES.get(part, part) for part in key): value for key, value in values.items()}
    for name in metric.vllm:
        yield _family(metric, name, labels, model, renamed, histogram)


def _family(
    metric: Metric, name: str, labels: Labels, model: str, values: Mapping[Labels, float], histogram: Histogram | None
) -> Family:
    if histogram is not None:
        histograms = HistogramMetricFamily(name, metric.help, labels=labels)
        bounds = [*map(str, histogram.bounds), "+Inf"]
        counts = histogram.cumulative()
        histograms.add_metric([model], list(zip(bounds, counts, strict=True)), histogram.total)
        return histograms
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(name, metric.help, labels=labels)
    for key, value in values.items():
        family.add_metric([model, *key], value)
    return family
