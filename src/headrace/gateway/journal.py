"""What the gateway counts, and the decisions it remembers."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from headrace.gateway.fleet import Fleet
from headrace.gateway.prefix_index import PrefixIndex
from headrace.gateway.route import Decision
from headrace.gateway.tally import Tally
from headrace.observability.histogram import Histogram

NUM_DECISIONS = 1_000
_MOST_NEW = 256
_KINDS = ("first", "retry", "hedge", "continue")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_OWN_SECONDS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Journal(Collector):
    """An observer of the exchanges, read by scrapes and administrators. Used by one event loop.

    What happens is written down, and summed up now and then or when somebody reads: many at once take less time than
    each alone.

    Attributes: decided: to be called when a request is sent to a replica.
    """

    def __init__(self, fleet: Fleet, index: PrefixIndex, clock: Callable[[], float]) -> None:
        """Nothing happened yet."""
        self._decisions: deque[Decision] = deque(maxlen=NUM_DECISIONS)
        self._new_decisions: list[Decision] = []
        self._new_ends: list[tuple[str, int, float, float, tuple[int, int, int]]] = []
        self.decided: Callable[[Decision], None] = self._new_decisions.append
        self._fleet = fleet
        self._index = index
        self._clock = clock
        # Plain dictionaries: to add one to an entry of a Counter takes twice as long.
        self._kinds = dict.fromkeys(_KINDS, 0)
        self._attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._tokens = (0, 0, 0)
        self._routed_tokens = self._routed_cached_tokens = 0
        self._downs: defaultdict[str, int] = defaultdict(int)
        self._took = Histogram(_SECONDS)
        self._own = Histogram(_OWN_SECONDS)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    # ---------------------------------------------------------------- from the exchanges and the prober

    def attempt_ended(self, replica: str, outcome: str) -> None:
        """One try ended."""
        self._attempts[replica, outcome] += 1

    def finished(self, outcome: str, status: int, took_s: float, own_s: float, usage: tuple[int, int, int]) -> None:
        """A request has its answer."""
        self._new_ends.append((outcome, status, took_s, own_s, usage))
        if len(self._new_ends) == _MOST_NEW:
            self._sum_up()

    def _sum_up(self) -> None:
        """Count what was written down."""
        for decision in self._new_decisions:
            self._kinds[decision.kind] += 1
            self._routed_tokens += decision.num_tokens
            self._routed_cached_tokens += decision.num_cached_tokens
        self._decisions.extend(self._new_decisions)
        self._new_decisions.clear()
        prompt, cached, output = self._tokens
        for outcome, status, took_s, own_s, usage in self._new_ends:
            self._requests[outcome, status] += 1
            self._took.observe(took_s)
            self._own.observe(own_s)
            prompt, cached, output = prompt + usage[0], cached + usage[1], output + usage[2]
        self._tokens = prompt, cached, output
        self._new_ends.clear()

    @property
    def decisions(self) -> Sequence[Decision]:
        """The last thousand, the newest last."""
        self._sum_up()
        return self._decisions

    def went_down(self, replica: str) -> None:
        """A health check took a replica out."""
        self._downs[replica] += 1

    # ---------------------------------------------------------------- several processes

    def tally(self) -> Tally:
        """What was counted here, but for the health checks' word: every process has its own of the same replica."""
        self._sum_up()
        return Tally(
            dict(self._kinds),
            dict(self._attempts),
            dict(self._requests),
            self._tokens,
            (self._routed_tokens, self._routed_cached_tokens),
            (list(self._took.counts), self._took.total),
            (list(self._own.counts), self._own.total),
        )

    def take(self, total: Tally) -> None:
        """Have this instead of what was counted here: the sum over all processes."""
        self._sum_up()
        self._kinds = {**dict.fromkeys(_KINDS, 0), **total.kinds}
        self._attempts, self._requests = defaultdict(int, total.attempts), defaultdict(int, total.requests)
        self._tokens = total.tokens
        self._routed_tokens, self._routed_cached_tokens = total.routed_tokens
        for histogram, (counts, seconds) in ((self._took, total.took), (self._own, total.own)):
            if counts:
                histogram.counts, histogram.total = counts, seconds

    @property
    def counts(self) -> dict[str, int]:
        """Requests by outcome, and how often one was sent again."""
        self._sum_up()
        outcomes: Counter[str] = Counter()
        for (outcome, _), count in self._requests.items():
            outcomes[outcome] += count
        return {**outcomes, **{f"sent_{kind}": count for kind, count in self._kinds.items()}}

    # ---------------------------------------------------------------- for Prometheus

    def render(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """All families."""
        self._sum_up()
        requests = {(outcome, str(status)): count for (outcome, status), count in self._requests.items()}
        yield _counter("requests", "Requests answered, by outcome and status.", ("outcome", "status"), requests)
        yield _counter(
            "attempts", "Requests sent to replicas, by how that ended.", ("replica", "outcome"), self._attempts
        )
        kinds = {(kind,): count for kind, count in self._kinds.items()}
        yield _counter("sends", "Requests sent to replicas, by why: first, retry, hedge, continue.", ("kind",), kinds)
        tokens = {(kind,): count for kind, count in zip(("prompt", "cached", "output"), self._tokens, strict=True)}
        yield _counter("tokens", "Tokens of answered requests, by the replicas' usage.", ("kind",), tokens)
        routed = {("all",): self._routed_tokens, ("held",): self._routed_cached_tokens}
        yield _counter("routed_prompt_tokens", "Prompt tokens sent, estimated; held by the index.", ("kind",), routed)
        downs = {(name,): count for name, count in self._downs.items()}
        yield _counter("ejections", "Times that a health check took a replica out.", ("replica",), downs)
        now_s = self._clock()
        ready = {(r.name, r.condition(now_s)): 1 for r in self._fleet}
        yield _gauge("replica_condition", "1 for the condition that a replica is in.", ("replica", "condition"), ready)
        flight = {(r.name,): r.num_in_flight for r in self._fleet}
        yield _gauge("requests_in_flight", "Requests under way at a replica.", ("replica",), flight)
        prefill = {(r.name,): r.tokens_in_flight for r in self._fleet}
        yield _gauge("tokens_in_flight", "Uncached prompt tokens sent and not computed yet.", ("replica",), prefill)
        yield _gauge("index_entries", "Prefix blocks that are known of.", (), {(): len(self._index)})
        yield _histogram("request_duration_seconds", "From a request's last byte to its answer's end.", self._took)
        yield _histogram("decision_seconds", "From a request's last byte until a replica is asked.", self._own)


def _counter(name: str, text: str, labels: Iterable[str], values: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"headrace_gateway_{name}", text, labels=tuple(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: Iterable[str], values: Mapping[Any, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"headrace_gateway_{name}", text, labels=tuple(labels))
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, histogram.cumulative(), strict=True))
    return HistogramMetricFamily(f"headrace_gateway_{name}", text, buckets=buckets, sum_value=histogram.total)
