"""Guided generation with a real model."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from headrace import LLM, ContinuousBatchingManager, GuideSpec, SamplingParams
from headrace.engine.intake import Intake
from headrace.errors import GuideFailed, InvalidGuide, InvalidParameter
from tests.engine.outcomes import Outcomes
from tests.guides.answers import EOS, PERSON

SETTINGS: dict[str, Any] = {
    "block_size": 4,
    "max_num_batched_tokens": 64,
    "max_num_seqs": 8,
    "max_model_len": 1024,
    "num_blocks": 2048,
    "check_integrity": True,
}
PHONE = GuideSpec.regex("[0-9]{3}-[0-9]{4}")


@pytest.fixture(scope="module")
def llm(random_model: Any) -> Any:
    with LLM(str(random_model), **SETTINGS) as llm:
        llm.generate("hello", guided(PHONE))  # so that all its threads are there before a test counts them
        yield llm


def guided(spec: GuideSpec, **params: Any) -> SamplingParams:
    return SamplingParams(**{"guide": spec, "max_tokens": 300, "seed": 1, **params})


def texts(outputs: Any) -> list[str]:
    assert [output.error for output in outputs] == [None] * len(outputs)
    return [completion.text for output in outputs for completion in output.outputs]


def test_answers_are_of_their_guides(llm):
    kinds = {
        "choice": GuideSpec.choice(["yes", "no", "naïve 😀"]),
        "regex": PHONE,
        "lark": GuideSpec.grammar('start: "<" inner ">"\ninner: /[a-f]{2,5}/ ("," /[0-9]/)*'),
        "gbnf": GuideSpec.grammar('root ::= ("a" | "b") "-" [0-9]{2}'),
        "schema": PERSON,
    }
    outputs = llm.generate(["hello"] * 15, [guided(spec, seed=i) for i in range(3) for spec in kinds.values()])
    for kind, text in zip(list(kinds) * 3, texts(outputs), strict=True):
        match kind:
            case "choice":
                assert text in ("yes", "no", "naïve 😀")
            case "regex":
                assert re.fullmatch(r"\d{3}-\d{4}", text)
            case "lark":
                assert re.fullmatch("<[a-f]{2,5}(,[0-9])*>", text)
            case "gbnf":
                assert re.fullmatch("[ab]-[0-9]{2}", text)
            case "schema":
                jsonschema.validate(json.loads(text), json.loads(PERSON.value))
    assert {c.finish_reason for output in outputs for c in output.outputs} == {"stop"}


@pytest.mark.parametrize("params", [{"ignore_eos": True}, {}])
@pytest.mark.parametrize("streaming", [True, False])
def test_the_text_is_whole_with_an_end_token_and_without(llm, params, streaming):
    if streaming:
        text = "".join(delta.text for delta in llm.stream("hello", guided(PHONE, **params)))
    else:
        (output,) = llm.generate("hello", guided(PHONE, **params))
        assert (output.outputs[0].token_ids[-1] == EOS) == (not params)
        text = output.outputs[0].text
    assert re.fullmatch(r"\d{3}-\d{4}", text)


def test_completions_of_one_prompt_are_independent_and_reproducible(llm):
    params = guided(PERSON, n=4, seed=5)
    first, again = (llm.generate("hello", params)[0] for _ in range(2))
    assert first.outputs == again.outputs
    assert len({completion.text for completion in first.outputs}) == 4
    (alone,) = llm.generate("hello", guided(PERSON, seed=5))
    assert alone.outputs[0].token_ids == first.outputs[0].token_ids


PROMPTS = ["hello", "the quick brown fox", "42", "naïve café – 你好", "a", "jumps over"]
MIXED = [
    SamplingParams(temperature=0.0, max_tokens=30, guide=PERSON if i % 2 else None, ignore_eos=True) for i in range(6)
]


def test_greedy_answers_alone_in_a_batch_and_preempted_are_the_same(llm, random_model, monkeypatch):
    alone = [llm.generate(prompt, params)[0].outputs for prompt, params in zip(PROMPTS, MIXED, strict=True)]
    assert [output.outputs for output in llm.generate(PROMPTS, MIXED)] == alone
    monkeypatch.setattr("headrace.engine.scheduler.admission.GROWTH_HORIZON_TOKENS", 0)
    tight = {**SETTINGS, "num_blocks": 24, "max_model_len": 64, "safety_margin": 0.0}
    with LLM(str(random_model), **tight) as small:
        assert [output.outputs for output in small.generate(PROMPTS, MIXED)] == alone
        assert small.dump_state()["counters"]["num_preemptions"] > 0


def test_guided_neighbours_do_not_change_the_others(llm):
    plain = [SamplingParams(max_tokens=20, seed=i, ignore_eos=True) for i in range(6)]
    mixed = [guided(PERSON, seed=i) if i % 2 else params for i, params in enumerate(plain)]
    expected = [output.outputs for output in llm.generate(PROMPTS, plain)]
    got = [output.outputs for output in llm.generate(PROMPTS, mixed)]
    assert got[::2] == expected[::2]


def test_a_continued_answer_is_the_one_that_was_begun(llm):
    whole = llm.generate("hello", guided(PERSON, temperature=0.0))[0].outputs[0].token_ids
    prompt = llm.tokenizer.encode("hello")
    intake: Intake = llm._intake
    for given in (1, 4, len(whole) - 1):
        outcomes = Outcomes()
        params = guided(PERSON, temperature=0.0)
        requests = intake.requests(prompt, params, f"go-on-{given}", output_token_ids=whole[:given])
        llm._guided.submit(requests, outcomes.take)
        outcomes.wait_for(1)
        assert tuple(outcomes.tokens[f"go-on-{given}"]) == whole[given:]


def test_penalties_and_bias_choose_within_the_guide(llm):
    spec = GuideSpec.choice(["yes", "no"])
    no = llm.tokenizer.encode("no", add_special_tokens=False)[0]
    biased = guided(spec, logit_bias={no: 100.0, 50: 100.0}, repetition_penalty=1.5, temperature=0.0)
    assert texts(llm.generate("hello", biased)) == ["no"]
    against = guided(spec, logit_bias={no: -100.0}, temperature=0.0)
    assert texts(llm.generate("hello", against)) == ["yes"]


def test_stop_strings_and_max_tokens_cut_where_they_cut_any_answer(llm):
    cut = llm.generate("hello", guided(PHONE, stop="-"))[0].outputs[0]
    assert re.fullmatch(r"\d{3}", cut.text)
    assert (cut.finish_reason, cut.stop_reason) == ("stop", "-")
    short = llm.generate("hello", guided(PHONE, max_tokens=2))[0].outputs[0]
    assert (short.finish_reason, len(short.token_ids)) == ("length", 2)


def test_logprobs_come_with_guided_tokens(llm):
    completion = llm.generate("hello", guided(PHONE, logprobs=2, prompt_logprobs=1))[0].outputs[0]
    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)


def test_what_cannot_be_is_refused_or_fails_with_words(llm, random_model):
    with pytest.raises(InvalidGuide, match="unclosed group"):
        llm.submit("hello", guided(GuideSpec.regex("(a")))
    bad, good = llm.generate(["hello"] * 2, [guided(GuideSpec.regex("(a")), guided(PHONE)])
    assert isinstance(bad.error, InvalidGuide)
    assert good.error is None
    (early,) = llm.generate("hello", guided(PHONE, min_tokens=50))
    assert isinstance(early.error, GuideFailed)
    assert "min_tokens=50" in str(early.error)
    with ContinuousBatchingManager(str(random_model)) as manager, pytest.raises(InvalidParameter, match="use LLM"):
        manager.add_request([5, 6], sampling_params=guided(PHONE))


def test_without_a_tokenizer_guides_are_refused(random_model):
    from transformers import AutoModelForCausalLM

    with (
        LLM(AutoModelForCausalLM.from_pretrained(random_model), **SETTINGS) as llm,
        pytest.raises(InvalidParameter, match="need a tokenizer"),
    ):
        llm.submit([5, 6], guided(PHONE))


def test_an_engine_that_is_closed_while_guides_are_compiled_ends_them(random_model):
    with LLM(str(random_model), **SETTINGS) as llm:
        handles = [llm.submit("hello", guided(GuideSpec.regex(f"[a-z]{{{i}}}"))) for i in range(1, 9)]
    assert {handle.result(30).outputs[0].finish_reason for handle in handles} <= {"stop", "cancelled"}
