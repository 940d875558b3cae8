"""What must hold: answers drawn at temperature 1 validate, from a model that was trained on a tale and a random one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from headrace import LLM, GuideSpec, SamplingParams
from headrace.text.guides import check
from tests.guides.schemas import Schema, schemas

SETTINGS: dict[str, Any] = {"max_model_len": 1536, "num_blocks": 4096, "block_size": 16, "max_num_seqs": 32}


def problems_of(schema: Schema, text: str) -> list[str]:
    """What is wrong with an answer by an implementation that is not ours; formats are checked too."""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        value = json.loads(text)
    except ValueError as error:
        return [f"{text!r}: {error}"]
    return [f"{text!r}: {error.message}" for error in validator.iter_errors(value)]


def finished_share(llm: LLM, cases: list[Schema], seed: int) -> float:
    """Draw an answer of each schema; all that finish must validate. Returns the share that does."""
    params = [
        SamplingParams(guide=GuideSpec.json_schema(schema), temperature=1.0, seed=seed + i, max_tokens=600)
        for i, schema in enumerate(cases)
    ]
    outputs = llm.generate(["Who lives in the mill?"] * len(cases), params)
    errors = [(case, str(output.error)) for case, output in zip(cases, outputs, strict=True) if output.error]
    assert errors == []
    answers = [output.outputs[0] for output in outputs]
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    finished = [(case, a) for case, a in zip(cases, answers, strict=True) if a.finish_reason == "stop"]
    wrong = [(case, problems) for case, a in finished if (problems := problems_of(case, a.text))]
    assert wrong == []
    return len(finished) / len(cases)


def test_the_schemas_are_schemas_and_compile():
    cases = schemas(200)
    assert len({json.dumps(case, sort_keys=True) for case in cases}) > 190
    for case in cases:
        Draft202012Validator.check_schema(case)
        check(GuideSpec.json_schema(case))


def test_answers_to_twenty_schemas_validate(random_model):
    with LLM(str(random_model), **SETTINGS) as llm:
        assert finished_share(llm, schemas(20, seed=1), seed=1) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_answers_to_two_hundred_schemas_validate(random_model, seed, record_property):
    for model in ("builtin", str(random_model)):
        with LLM(model, **SETTINGS) as llm:
            share = finished_share(llm, schemas(200, seed), seed=1000 * seed)
        record_property(f"finished share of {model}", share)
        print(f"{model}: {share:.1%} finished")
        assert share > 0.8


@pytest.mark.slow
def test_answers_to_expressions_and_grammars_match():
    expressions = [
        r"[a-z]{3,9}",
        r"\d{1,3}(\.\d{1,3}){3}",
        r"(foo|bar)+baz",
        r"[^x]{5}x",
        r"(é|ß|日本){2}",
        r"[A-F0-9]{8}",
    ]
    sums = GuideSpec.grammar('start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]{0,2}/')
    with LLM("builtin", **SETTINGS) as llm:
        params = [
            SamplingParams(guide=GuideSpec.regex(pattern), seed=seed, max_tokens=300)
            for pattern in expressions
            for seed in range(5)
        ] + [SamplingParams(guide=sums, seed=seed, max_tokens=300) for seed in range(10)]
        outputs = llm.generate(["The mill"] * len(params), params)
    assert [output.error for output in outputs] == [None] * len(outputs)
    num_finished = 0
    for settings, output in zip(params, outputs, strict=True):
        answer = output.outputs[0]
        if answer.finish_reason == "stop":
            num_finished += 1
            if settings.guide == sums:
                assert isinstance(eval(answer.text, {"__builtins__": {}}), int)
            else:
                assert re.fullmatch(settings.guide.value, answer.text), answer.text
    assert num_finished > 0.8 * len(params)
