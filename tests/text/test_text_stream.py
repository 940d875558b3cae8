"""Tokens to text with stop strings: what is shown, and how many tokens were kept."""

from __future__ import annotations

import pytest

from headrace.text import TextStream, Tokenizer
from tests.text import tokenizers_for_tests as trained


@pytest.fixture(params=[trained.byte_level, trained.byte_fallback, trained.metaspace])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(request.param())


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_a_stop_string_over_several_tokens(tokenizer: Tokenizer, batch: int) -> None:
    ids = tokenizer.encode("The quick brown fox jumps over the lazy dog")
    stream, text, kept = TextStream(tokenizer, ["fox jumps", "never"]), "", 0
    for start in range(0, len(ids), batch):
        delta = stream.push(ids[start : start + batch])
        text += delta.text
        kept += delta.num_tokens
    assert delta.stop_string == "fox jumps"
    assert delta.stopped
    assert text == "The quick brown "
    assert "fox jumps" in tokenizer.decode(ids[:kept])
    assert "fox jumps" not in tokenizer.decode(ids[: kept - 1])
    assert stream.flush().text == ""


def test_without_a_match_the_flush_gives_what_was_held(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("hello world")
    stream = TextStream(tokenizer, ["world, hello"])
    delta = stream.push(ids)
    assert delta.text == "hello "
    assert delta.num_tokens == len(ids)
    assert not delta.stopped
    assert stream.flush().text == "world"


def test_a_stop_string_before_min_tokens_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one, two, three, four")
    first = next(n for n in range(len(ids)) if "," in tokenizer.decode(ids[:n]))
    assert TextStream(tokenizer, [","], min_tokens=first).push(ids).text == "one"
    later = TextStream(tokenizer, [","], min_tokens=first + 1).push(ids)
    assert later.text.startswith("one, two")
    assert later.stopped


def test_an_unfinished_character_may_complete_a_stop_string() -> None:
    tokenizer = Tokenizer(trained.byte_level())
    stream = TextStream(tokenizer, ["a�"])
    half = [*tokenizer.encode("a"), tokenizer.inner.convert_tokens_to_ids("Ã")]
    assert stream.push(half).text == ""
    assert stream.flush().stop_string == "a�"
