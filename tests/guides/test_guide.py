"""A guide's mask is a function of the tokens so far, however they came."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import GuideFailed, InvalidGuide
from headrace.text.guides import GuideSpec
from tests.guides.answers import PERSON, VOCAB_SIZE, ids_of, random_answer


def test_the_mask_after_any_number_of_tokens_is_the_same_in_any_order(compiler):
    tokens, _ = random_answer(compiler.compile(PERSON), 3)
    expected = [compiler.compile(PERSON).mask(tokens[:count]) for count in range(len(tokens) + 1)]

    @given(st.lists(st.integers(0, len(tokens)), max_size=6))
    @settings(max_examples=25)
    def check(counts: list[int]) -> None:
        guide = compiler.compile(PERSON)
        for count in counts:
            mask = guide.mask(tokens, count)
            assert np.array_equal(mask.bits, expected[count].bits)
            assert mask.is_complete == expected[count].is_complete

    check()
    assert expected[-1].is_complete


def test_only_the_tokens_that_were_asked_for_are_read(compiler):
    guide = compiler.compile(GuideSpec.regex("[a-z]+"))
    tokens, _ = random_answer(guide.copy(), 1, most=5)
    expected = ids_of(guide.copy().mask(tokens[:1]))
    assert ids_of(guide.mask([*tokens, 0, 0], 1)) == expected


def test_copies_go_their_own_ways(compiler, tokenizer):
    guide = compiler.compile(GuideSpec.choice(["ab", "cd"]))
    first, second = guide.copy(), guide.copy()
    a, c = ids_of(guide.mask([]))
    after = ids_of(first.mask([a])), ids_of(second.mask([c]))
    assert [tokenizer.decode([a, *after[0]]), tokenizer.decode([c, *after[1]])] == ["ab", "cd"]
    assert ids_of(guide.mask([])) == [a, c]


def test_a_final_mask_allows_nothing(compiler):
    guide = compiler.compile(GuideSpec.choice(["yes"]))
    tokens, _ = random_answer(guide, 0)
    mask = guide.mask(tokens)
    assert mask.is_final
    assert ids_of(mask) == []
    unfinished = compiler.compile(GuideSpec.regex("a+"))
    tokens, _ = random_answer(unfinished, 0)
    assert unfinished.mask(tokens).is_complete
    assert not unfinished.mask(tokens).is_final


@pytest.mark.parametrize("wrong", [0, 2, 300, VOCAB_SIZE - 1, VOCAB_SIZE + 1000])
def test_a_token_that_is_not_of_the_grammar_is_named(compiler, wrong):
    guide = compiler.compile(GuideSpec.regex("[0-9]+"))
    with pytest.raises(GuideFailed, match=rf"token {wrong}, number 0 of the answer"):
        guide.mask([wrong])


def test_a_grammar_that_grows_past_its_limits_fails_alone(compiler):
    ambiguous = " | ".join("x " * i + '"a"' for i in range(1, 200))
    with pytest.raises((GuideFailed, InvalidGuide), match=r"cannot"):
        random_answer(compiler.compile(GuideSpec.grammar(f"start: x\nx: {ambiguous}")), 0, most=50)
    assert compiler.compile(PERSON).mask([]).bits.any()


def test_one_guide_may_be_asked_by_several_threads(compiler):
    guide = compiler.compile(PERSON)
    tokens, _ = random_answer(guide.copy(), 5)
    expected = [ids_of(compiler.compile(PERSON).mask(tokens, count)) for count in range(len(tokens))]
    problems: list[str] = []

    def ask(step: int) -> None:
        counts = range(0, len(tokens), step)
        problems.extend(f"after {n}" for n in counts if ids_of(guide.mask(tokens, n)) != expected[n])

    threads = [threading.Thread(target=ask, args=(step,)) for step in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
