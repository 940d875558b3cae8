"""An answer that was begun elsewhere goes on as if nothing had happened."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import EngineConfig
from headrace.engine.assembly import assemble
from headrace.engine.core import EngineCore
from headrace.engine.intake import Intake, IntakeLimits
from headrace.engine.outputs import EngineOutput
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidParameter, InvalidRequest, TokenOutOfRange
from tests.engine.simulation import Simulation

PROMPT = [5, 6, 7, 8, 9]


@given(
    cut=st.integers(1, 39),
    length=st.integers(2, 40),
    seed=st.integers(0, 2**64 - 1),
    block_size=st.sampled_from([1, 2, 8]),
    max_tokens=st.integers(4, 32),
    min_tokens=st.integers(0, 2),
    neighbours=st.integers(0, 3),
)
def test_the_rest_is_the_same_at_any_cut(
    cut: int, length: int, seed: int, block_size: int, max_tokens: int, min_tokens: int, neighbours: int
) -> None:
    options: dict[str, Any] = {"max_tokens": length, "seed": seed, "min_tokens": min_tokens, "stop_token_ids": (3,)}
    whole = Simulation(block_size=block_size, max_tokens=64)
    whole.add(PROMPT, **options)
    tokens = whole.run().tokens["r0"]
    cut = min(cut, len(tokens) - 1)
    if cut == 0:
        return
    other = Simulation(block_size=block_size, max_tokens=max_tokens, max_seqs=min(4, max_tokens), num_blocks=100)
    for i in range(neighbours):
        other.add([*PROMPT, i], max_tokens=20)
    other.add(PROMPT, request_id="rest", begun=tokens[:cut], **options)
    other.run()
    other.check_tokens()
    assert other.tokens["rest"] == tokens[cut:]
    assert other.ended["rest"].finish_reason == whole.ended["r0"].finish_reason


def test_a_begun_answer_survives_a_preemption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    whole = Simulation(vocab_size=1000)
    for i in range(3):
        whole.add([1, 2, i], max_tokens=60, ignore_eos=True)
    whole.run()
    tight = Simulation(vocab_size=1000, num_blocks=25, block_size=4, safety_margin=0.0)
    for i in range(3):
        tight.add([1, 2, i], max_tokens=60, ignore_eos=True, begun=whole.tokens[f"r{i}"][: 10 * i])
    tight.run()
    assert tight.scheduler.counters.num_preemptions > 0
    for i in range(3):
        assert tight.tokens[f"r{i}"] == whole.tokens[f"r{i}"][10 * i :]


def test_logprobs_come_for_the_new_tokens_and_for_the_whole_prompt() -> None:
    simulation = Simulation()
    simulation.add(PROMPT, begun=[4, 4, 4], max_tokens=8, ignore_eos=True, logprobs=1, prompt_logprobs=1)
    outputs: list[EngineOutput] = []
    while simulation.scheduler.has_requests:
        outputs += simulation.core.step()
    assert [entry.token_id for output in outputs for entry in output.new_logprobs] == [
        token for output in outputs for token in output.new_token_ids
    ]
    assert sum(len(output.new_token_ids) for output in outputs) == 5
    assert [entry and entry.token_id for entry in outputs[-1].prompt_logprobs or ()] == [None, *PROMPT[1:]]


def _intake() -> Intake:
    return Intake(IntakeLimits(vocab_size=50, max_model_len=20, eos_token_ids=frozenset({2})), lambda: 0.0)


@pytest.mark.parametrize(
    ("begun", "params", "error", "words"),
    [
        ([4, 50], {}, TokenOutOfRange, "token id 50"),
        ([4] * 8, {"max_tokens": 8}, InvalidRequest, "8 tokens cannot go on: it may have 8"),
        ([4] * 15, {"max_tokens": None}, InvalidRequest, "it may have 15"),
        ([4, 2], {}, InvalidRequest, "stop token 2"),
        ([4, 7], {"stop_token_ids": (7,)}, InvalidRequest, "stop token 7"),
        ([4], {"n": 2}, InvalidParameter, "n=2"),
    ],
)
def test_what_cannot_go_on_is_refused(begun: list[int], params: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        _intake().requests(PROMPT, SamplingParams(**params), "a", output_token_ids=begun)


def test_what_can_go_on_is_taken() -> None:
    (request,) = _intake().requests(PROMPT, SamplingParams(max_tokens=9), "a", output_token_ids=[4] * 8)
    assert (request.token_ids, request.max_output_tokens) == ([*PROMPT, *[4] * 8], 9)
    _intake().requests(PROMPT, SamplingParams(ignore_eos=True), "b", output_token_ids=[2])


SAMPLED = {"temperature": 1.3, "seed": 11, "top_p": 0.95}


@pytest.fixture(scope="module")
def tiny_core(tiny_model: Any) -> Any:
    """The real runner on the tiny model."""
    engine = assemble(copy.deepcopy(tiny_model), EngineConfig(num_blocks=64, block_size=8, check_integrity=True))
    yield engine.core
    engine.core.runner.close()


def _generate(core: EngineCore, params: SamplingParams, begun: list[int]) -> list[int]:
    limits = IntakeLimits(core.runner.vocab_size, 400, frozenset({2}))
    for request in Intake(limits, core.clock).requests([1, 17, 30, 5], params, "a", output_token_ids=begun):
        core.scheduler.add(request)
    tokens: list[int] = []
    while core.scheduler.has_requests:
        for output in core.step():
            assert output.error is None
            tokens += output.new_token_ids
    return tokens


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0},
        SAMPLED,
        {**SAMPLED, "repetition_penalty": 1.4, "frequency_penalty": 0.7, "presence_penalty": -0.5},
        {**SAMPLED, "min_tokens": 12, "logit_bias": {2: 8.0}},
    ],
    ids=["greedy", "sampled", "penalties", "min_tokens"],
)
def test_the_real_model_goes_on_alike(tiny_core: EngineCore, settings: dict[str, Any]) -> None:
    params = SamplingParams(max_tokens=24, **settings)
    whole = _generate(tiny_core, params, [])
    for cut in range(1, len(whole)):
        assert _generate(tiny_core, params, whole[:cut]) == whole[cut:]
