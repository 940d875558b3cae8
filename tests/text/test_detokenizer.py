"""The text that was streamed is the text of the whole, and nothing that was given out changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.text import IncrementalDetokenizer, Tokenizer
from tests.text import tokenizers_for_tests as trained

FAMILIES = {"byte_level": trained.byte_level, "byte_fallback": trained.byte_fallback, "metaspace": trained.metaspace}

SAMPLES = [
    "Hello world, isn't it?",
    "  leading and trailing  ",
    "a\n\n\tb = True\r\n",
    "你好，世界。日本語のテキスト 한국어",
    "😀😀 👨‍👩‍👧 🇳🇴 é ü ß",
    "x" * 200 + " " * 50 + "�",
    "",
]


@pytest.fixture(params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(FAMILIES[request.param]())


def pieces(tokenizer: Tokenizer, ids: list[int], cuts: Iterator[int] | None = None) -> list[str]:
    """Stream ids in batches of the sizes that `cuts` gives (one by one by default); the flush is the last piece."""
    stream, given_out, place = IncrementalDetokenizer(tokenizer), [], 0
    for size in cuts or itertools.repeat(1):
        if place >= len(ids):
            break
        given_out.append(stream.push(ids[place : place + size]))
        place += size
    return [*given_out, stream.flush()]


def byte_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """One token per byte, so that any sequence of bytes can be spelled, well-formed or not."""
    inner = tokenizer.inner
    if tokenizer.byte_token_ids:
        return [inner.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in data]
    return [inner.convert_tokens_to_ids(_GPT2_LETTERS[byte]) for byte in data]


def _gpt2_letters() -> dict[int, str]:
    """The letter that byte-level BPE writes for each byte (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_GPT2_LETTERS = _gpt2_letters()


@pytest.mark.parametrize("text", SAMPLES)
def test_streamed_text_is_the_decoded_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize("text", SAMPLES)
def test_a_character_comes_whole_with_its_last_token(family: str, text: str) -> None:
    """Nothing waits for the flush, and U+FFFD is given out only where the text itself holds it."""
    tokenizer = Tokenizer(FAMILIES[family]())
    *pushed, flushed = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(pushed).count("�") + flushed.count("�") == text.count("�")
    assert flushed in ("", "�")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("family", ["byte_level", "metaspace"])
def test_any_ids_in_any_batches(family: str, data: st.DataObject) -> None:
    tokenizer = Tokenizer(FAMILIES[family]())
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    cuts = data.draw(st.lists(st.integers(1, 9), min_size=len(ids), max_size=len(ids)))
    assert "".join(pieces(tokenizer, ids, iter(cuts))) == tokenizer.decode(ids)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_of_byte_level_bpe(data: st.DataObject) -> None:
    """Also long stretches of bytes that never become a character, where the window is cut."""
    tokenizer = Tokenizer(trained.byte_level())
    lead_and_tail = st.sampled_from([0x41, 0x80, 0x9F, 0xC3, 0xE4, 0xED, 0xF0, 0xF4, 0xFF])
    ids = byte_ids(tokenizer, bytes(data.draw(st.lists(lead_and_tail | st.integers(0, 255), max_size=80))))
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


RUNS = st.text(min_size=1, max_size=5).map(lambda text: text.encode("utf-8", "ignore")) | st.binary(
    min_size=1, max_size=9
).map(lambda tail: b"\xff" + tail)


@settings(max_examples=150, deadline=None)
@given(runs=st.lists(RUNS, max_size=6), words=st.lists(st.sampled_from(["hello", " ", "  x"]), min_size=6, max_size=6))
def test_runs_of_byte_tokens_that_are_well_formed_or_broken_from_the_start(runs: list[bytes], words: list[str]) -> None:
    tokenizer = Tokenizer(trained.byte_fallback())
    ids = [i for run, word in zip(runs, words, strict=False) for i in byte_ids(tokenizer, run) + tokenizer.encode(word)]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_byte_tokens_give_the_same_text_in_any_batches(data: st.DataObject) -> None:
    tokenizer = Tokenizer(trained.byte_fallback())
    ids = data.draw(st.lists(st.sampled_from([*byte_ids(tokenizer, bytes(range(256))), 40, 50]), max_size=40))
    cuts = data.draw(st.lists(st.integers(1, 9), min_size=len(ids), max_size=len(ids)))
    whole = tokenizer.decode(ids)
    streamed = "".join(pieces(tokenizer, ids, iter(cuts)))
    assert streamed == "".join(pieces(tokenizer, ids))
    assert streamed == whole or "�" in whole


def test_characters_that_were_complete_stay_when_their_run_breaks() -> None:
    """What transformers would take back: the one exception that the docstring states."""
    tokenizer = Tokenizer(trained.byte_fallback())
    ids = byte_ids(tokenizer, "你".encode() + b"\xff") + tokenizer.encode("a")
    assert pieces(tokenizer, ids)[2] == "你"
    assert tokenizer.decode(ids).startswith("����")


def test_a_character_goes_on_after_many_ids_without_text() -> None:
    """Ids past the vocabulary, which models with a padded embedding can generate, decode to nothing."""
    tokenizer = Tokenizer(trained.byte_level())
    first, *rest = byte_ids(tokenizer, "😀".encode())
    ids = [first, *range(9000, 9030), *rest]
    assert pieces(tokenizer, ids)[-2:] == ["😀", ""]


def test_special_tokens_leave_no_trace_unless_they_are_asked_for() -> None:
    tokenizer = Tokenizer(trained.byte_fallback())
    eos = tokenizer.eos_token_ids[0]
    ids = [*tokenizer.encode("hello"), *([eos] * 40), *tokenizer.encode("world"), eos]
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids) == "hello world"
    stream = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    assert stream.push(ids) + stream.flush() == tokenizer.decode(ids, skip_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False).count("<eos>") == 41


class CountingDecoder:
    """Counts the ids that are decoded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.num_decoded = tokenizer, 0
        self.special_token_ids, self.byte_token_ids = tokenizer.special_token_ids, tokenizer.byte_token_ids

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        self.num_decoded += len(token_ids)
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda t: t.encode("hello world " * 400), id="words"),
        pytest.param(lambda t: byte_ids(t, b"\xff" * 2000), id="bytes that are never a character"),
        pytest.param(lambda t: byte_ids(t, b"\xe4" * 2000), id="characters that are never finished"),
        pytest.param(lambda t: list(t.special_token_ids) * 700, id="special tokens"),
        pytest.param(lambda t: byte_ids(t, "你".encode() * 700), id="characters of three tokens"),
    ],
)
@pytest.mark.parametrize("family", ["byte_level", "byte_fallback"])
def test_the_work_per_token_does_not_grow(family: str, make: Callable[[Tokenizer], Any]) -> None:
    tokenizer = Tokenizer(FAMILIES[family]())
    ids, decoder = make(tokenizer), CountingDecoder(tokenizer)
    stream = IncrementalDetokenizer(decoder)
    for token_id in ids:
        stream.push((token_id,))
    assert decoder.num_decoded <= 30 * len(ids)
