"""What Prometheus' own tool says of our metrics: their form, names, help and units.

promtool is in Debian's package `prometheus`; without it these tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from headrace.gateway.journal import Journal
from tests.gateway.test_processes import journal_of
from tests.observability.test_metrics import busy, record

PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")


def complaints(text: bytes) -> list[tuple[str, str]]:
    """The name and what is wrong with it, of each complaint; an assertion for a text that cannot be read."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr.decode()  # 3: read, with complaints
    lines = done.stderr.decode().splitlines()
    assert bool(lines) == (done.returncode == 3)
    return [(name, words) for name, _, words in (line.partition(" ") for line in lines)]


def test_the_servers_metrics() -> None:
    """All is well but for names that are vLLM's: a colon stands in every one, `_total` ends a histogram's."""
    metrics = busy()
    metrics.request_finished(record(finish_reasons=("stop",), queued_s=0.1, prefill_s=0.2))
    found = complaints(metrics.render()[0])
    ours = [(name, words) for name, words in found if not name.startswith("vllm:")]
    vllms = {(name, words) for name, words in found if name.startswith("vllm:") and "':'" not in words}
    assert ours == []
    assert vllms == {("vllm:iteration_tokens_total", 'non-counter metrics should not have "_total" suffix')}


def test_the_gateways_metrics() -> None:
    journal: Journal = journal_of(200, 503)
    journal.went_down("r0")
    assert complaints(journal.render()) == []


def test_promtool_finds_what_is_wrong() -> None:
    assert complaints(b"# TYPE requests counter\nrequests 1\n") == [
        ("requests", 'counter metrics should have "_total" suffix'),
        ("requests", "no help text"),
    ]
    with pytest.raises(AssertionError):
        complaints(b"this is no metric\n")
