"""The parts that a token passes on its way out, one by one."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.engine.outputs import EngineOutput, TokenLogprobs
from headrace.errors import MethodNotAllowed, PromptTooLong, RouteNotFound, TokenOutOfRange
from headrace.protocol.table.endpoints import ENDPOINTS
from headrace.server.choice import Choice
from headrace.server.prompts import PromptEncoder, num_characters
from headrace.server.request_ids import request_id_of
from headrace.server.routes import Routes
from headrace.server.token_names import TokenNames
from headrace.text import TextStream, Tokenizer
from tests.server.service import in_loop, tokenizer
from tests.text import tokenizers_for_tests as trained


def choice(immediate: bool = True, stop: tuple[str, ...] = ()) -> Choice:
    return Choice(0, "r", TextStream(tokenizer(), stop), 3, immediate=immediate)


def outputs(text: str, *, ends: str | None = "length") -> list[EngineOutput]:
    """One output per token of a text; the last one is terminal."""
    ids = tokenizer().encode(text)
    last: Any = {"finish_reason": ends}
    return [EngineOutput("r", (token,), **(last if place == len(ids) - 1 else {})) for place, token in enumerate(ids)]


@pytest.mark.parametrize("immediate", [True, False])
def test_a_choice_is_its_text_in_pieces(immediate: bool) -> None:
    text = "The miller’s cat — 猫 — sleeps by the mill."
    found = choice(immediate)
    given = outputs(text)
    for output in given:
        assert not found.take(output)
    pieces = found.drain(1000)
    assert "".join(piece.text for piece in pieces) == text
    assert [token for piece in pieces for token in piece.token_ids] == [o.new_token_ids[0] for o in given]
    assert (found.num_tokens, found.finish_reason, found.is_ended) == (len(given), "length", True)
    assert (len(pieces) > 5) is immediate
    assert not found.drain(1000)


@pytest.mark.parametrize("immediate", [True, False])
def test_the_stop_token_is_no_text(immediate: bool) -> None:
    found = choice(immediate)
    for output in outputs("hello there", ends="stop"):
        found.take(output)
    whole = tokenizer().encode("hello there")
    assert "".join(piece.text for piece in found.drain(99)) == tokenizer().decode(whole[:-1])
    assert found.num_tokens == len(whole)


@pytest.mark.parametrize("immediate", [True, False])
def test_an_answer_that_ends_without_a_token_is_text_to_its_last_one(immediate: bool) -> None:
    found = choice(immediate)
    for output in outputs("hello there", ends=None):
        found.take(output)
    found.take(EngineOutput("r", finish_reason="stop"))
    assert "".join(piece.text for piece in found.drain(99)) == "hello there"
    assert (found.num_tokens, found.finish_reason) == (len(tokenizer().encode("hello there")), "stop")


@pytest.mark.parametrize("immediate", [True, False])
def test_a_stop_string_ends_a_choice_before_the_engine_knows(immediate: bool) -> None:
    found = choice(immediate, stop=("cat",))
    asked_to_cancel = [found.take(output) for output in outputs("the cat sat on the mat")]
    assert "".join(piece.text for piece in found.drain(99)) == "the "
    assert (found.finish_reason, found.stop_reason) == ("stop", "cat")
    assert sum(asked_to_cancel) == (1 if immediate else 0)  # at the end there is nothing to cancel
    assert found.num_tokens < len(asked_to_cancel)


def test_what_was_not_fetched_stays_in_order() -> None:
    found = choice()
    for output in outputs("a b c d e f g h"):
        found.take(output)
    pieces = []
    while found.has_pieces:
        pieces += found.drain(3)
    assert "".join(piece.text for piece in pieces) == "a b c d e f g h"


def test_logprobs_stay_with_their_tokens() -> None:
    found = choice(stop=("c",))
    for place, output in enumerate(outputs("a b c d")):
        found.take(output._replace(new_logprobs=(TokenLogprobs(output.new_token_ids[0], -float(place), 1, {}),)))
    for piece in found.drain(99):
        assert [item.token_id for item in piece.logprobs] == list(piece.token_ids)


@pytest.mark.parametrize("make", [trained.byte_level, trained.byte_fallback])
def test_names_of_tokens_are_the_bytes_of_the_text(make: Any) -> None:
    own = Tokenizer(make())
    names = TokenNames(own)
    for text in ("hello world", "naïve Zoë", "日本語 🙂 end"):
        ids = own.encode(text, add_special_tokens=False)
        data = b"".join(names.name(token)[1] for token in ids)
        assert data.decode().strip() == text
    assert names.name(ids[0]) is names.name(ids[0])


def test_every_token_of_the_builtin_model_has_bytes() -> None:
    names, chance = TokenNames(tokenizer()), random.Random(0)
    for token in chance.sample(range(3, tokenizer().vocab_size), 300):
        text, data = names.name(token)
        assert data
        assert (
            data.decode("utf-8", "replace").count("\N{REPLACEMENT CHARACTER}") == 0
            or "\N{REPLACEMENT CHARACTER}" in text
        )


def encoder(max_model_len: int = 100) -> PromptEncoder:
    return PromptEncoder(tokenizer(), 1536, max_model_len, ThreadPoolExecutor(1))


def test_a_prompt_that_is_far_too_long_is_not_gone_through() -> None:
    class Counting(Tokenizer):
        num_characters = 0

        def encode(self, text: str, **options: Any) -> list[int]:
            self.num_characters += len(text)
            return super().encode(text, **options)

    counting = Counting(tokenizer().inner)
    with pytest.raises(PromptTooLong, match="500000 characters"):
        PromptEncoder(counting, 1536, 100, ThreadPoolExecutor(1)).encode("hello " * 83_333 + "he")
    assert counting.num_characters < 2_000


def test_a_long_prompt_of_few_tokens_is_encoded() -> None:
    text = " " * 20_000  # runs of spaces are one token each
    assert encoder(20_000).encode(text) == tokenizer().encode(text)


@in_loop
async def test_short_work_is_done_at_once_and_long_work_in_a_thread() -> None:
    import threading

    here = threading.get_ident()
    assert await encoder().in_time(10, threading.get_ident) == here
    assert await encoder().in_time(10**6, threading.get_ident) != here


def test_the_size_of_a_call() -> None:
    assert num_characters({"role": "user", "content": [{"text": "x" * 1000}]}) >= 1000
    assert num_characters([1, 2, 3]) == 3
    with pytest.raises(TokenOutOfRange):
        encoder().check_range([0, 1536])


def test_request_ids_are_decent() -> None:
    assert request_id_of("abc-1", lambda bits: 0) == "abc-1"
    for bad in (None, "", "a\nb", "ä", "a" * 200):
        assert request_id_of(bad, lambda bits: 5) == "req-000000000000000000000005"


def test_routes() -> None:
    routes = Routes(ENDPOINTS)
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{id}", "org/model")
        found, parameter = routes.find(endpoint.method, path)
        assert (found, parameter) == (endpoint, "org/model" if "{" in endpoint.path else "")
    with pytest.raises(RouteNotFound):
        routes.find("GET", "/v1/models/")
    with pytest.raises(MethodNotAllowed, match="GET, HEAD"):
        routes.find("PATCH", "/health")
