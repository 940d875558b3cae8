"""Requests and outputs come out of the connection as they went in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engine.outputs import EngineOutput, Timing, TokenLogprobs
from headrace.engine.remote.messages import (
    Outputs,
    Submit,
    encoder,
    from_child_decoder,
    received_output,
    received_request,
    sent_output,
    sent_request,
    to_child_decoder,
)
from headrace.engine.remote.spec import Load
from headrace.engine.request import Request
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import QueueTimeout

TOKENS = st.lists(st.integers(0, 2**31), min_size=1, max_size=20)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.none() | st.integers(50, 900),
    temperature=st.floats(0, 2),
    seed=st.none() | st.integers(-(2**63), 2**64 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 99), st.floats(-100, 100), max_size=3),
    logprobs=st.none() | st.integers(0, 5),
    ignore_eos=st.booleans(),
)
FIELDS = [name for name in Request.__dataclass_fields__ if name not in ("arrival_s", "blocks")]


@given(TOKENS, PARAMS, TOKENS | st.just([]), st.none() | st.text(), st.integers(-9, 9), st.none() | st.floats(0, 99))
def test_a_request(prompt, params, begun, salt, priority, limit) -> None:
    request = Request("é-1", prompt, params, 2**64 - 1, frozenset({1, 2}), 1000, 50.0, salt, limit, priority, begun)
    payload = encoder.encode(Submit([sent_request(request, now_s=51.5)]))
    (sent,) = to_child_decoder.decode(payload).requests
    received = received_request(sent, now_s=1001.5)
    assert received.arrival_s == 1000.0  # as old by the child's clock as it was by the parent's
    for name in FIELDS:
        assert getattr(received, name) == getattr(request, name), name


def test_an_output_with_everything() -> None:
    logprobs = TokenLogprobs(5, -0.5, 1, {5: -0.5, 9: -1.5})
    output = EngineOutput(
        "a", (5, 6), (logprobs, logprobs), (None, logprobs), "error", 6, QueueTimeout("too long"), 32,
        Timing(0.1, 0.2, None, 0.4),
    )  # fmt: skip
    payload = encoder.encode(Outputs(Load(1, 2, 3, 4, 5), [("b", (7,), 0)], [sent_output(output)]))
    message = from_child_decoder.decode(payload)
    assert (message.load, message.plain) == (Load(1, 2, 3, 4, 5), [("b", (7,), 0)])
    received = received_output(message.others[0])
    assert isinstance(received.error, QueueTimeout)
    assert str(received.error) == "too long"
    assert received._replace(error=None) == output._replace(error=None)


def test_a_plain_output_is_an_output_with_nothing_else() -> None:
    output = EngineOutput("a", (5,), num_cached_tokens=8)
    assert received_output(sent_output(output)) == output
