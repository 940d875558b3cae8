"""From what a caller asks to requests that the engine accepts: every check of a request, in one place."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.engine.request import Request
from headrace.engine.sampling_params import SamplingParams
from headrace.errors import EmptyPrompt, InvalidParameter, InvalidRequest, PromptTooLong, TokenOutOfRange

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def sequence_seed(seed: int, number: int) -> int:
    """Of sequence `number` of a request: 0 draws what a request of one would draw, the others are a Weyl sequence."""
    return (seed + number * _GOLDEN) & _MASK


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """What a request must fit.

    Attributes:
        vocab_size: token ids are 0 … vocab_size - 1.
        max_model_len: most tokens, prompt and output; such a request also fits the cache alone (law 5).
        eos_token_ids: the model's end-of-sequence ids.
    """

    vocab_size: int
    max_model_len: int
    eos_token_ids: frozenset[int]


class Intake:
    """Checks prompts and parameters, and makes the requests of one engine. Thread-safe.

    Args:
        limits: of the engine. clock: the engine's. seeds: 64 random bits for requests without a seed.
    """

    def __init__(
        self,
        limits: IntakeLimits,
        clock: Callable[[], float],
        seeds: Callable[[], int] = lambda: random.getrandbits(64),
    ) -> None:
        """Ids count from 0."""
        self.limits = limits
        self._clock = clock
        self._seeds = seeds
        self._numbers: Iterator[int] = itertools.count()

    def new_request_id(self) -> str:
        """An id that no other call of this engine returns."""
        return f"req-{next(self._numbers)}"

    def requests(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        request_id: str,
        cache_salt: str | None = None,
        eos_token_ids: frozenset[int] | None = None,
        max_total_tokens: int | None = None,
        queue_timeout_s: float | None = None,
        priority: int = 0,
        output_token_ids: Sequence[int] = (),
        seed: int | None = None,
    ) -> list[Request]:
        """The `params.n` sequences of one request; with several, their ids end in #0, #1, …

        Args:
            prompt_token_ids: the prompt. params: sampling. request_id: of the request. cache_salt: of its prefixes.
            eos_token_ids: instead of the model's.
            max_total_tokens: most tokens of prompt and output, where that is less than the model's.
            queue_timeout_s: most seconds in the queue. priority: lower ones start first.
            output_token_ids: of an answer that was begun elsewhere and is to be continued; with a seed it goes on as
                it would have there.
            seed: in place of that of `params`.

        Raises:
            EmptyPrompt, PromptTooLong, TokenOutOfRange, InvalidParameter: with the numbers and what would work.
        """
        length = min(self.limits.max_model_len, max_total_tokens or self.limits.max_model_len)
        prompt = self._checked_prompt(prompt_token_ids, length)
        self._check_params(params)
        now = self._clock()
        if seed is None:
            seed = params.seed if params.seed is not None else self._seeds()
        eos = self.limits.eos_token_ids if eos_token_ids is None else eos_token_ids
        if output_token_ids:
            self._check_begun(output_token_ids, params, eos, length - len(prompt))
        return [
            Request(
                request_id if params.n == 1 else f"{request_id}#{i}",
                prompt,
                params,
                sequence_seed(seed, i),
                eos,
                length,
                now,
                cache_salt,
                queue_timeout_s,
                priority,
                list(output_token_ids),
            )
            for i in range(params.n)
        ]

    def _check_begun(
        self, output_token_ids: Sequence[int], params: SamplingParams, eos: frozenset[int], room: int
    ) -> None:
        """Refuse to continue what has ended already, and what cannot be told apart."""
        if params.n > 1:
            raise InvalidParameter("n", params.n, "1, to continue an answer: each sequence has its own tokens")
        self._check_range(output_token_ids)
        most = room if params.max_tokens is None else min(room, params.max_tokens)
        if len(output_token_ids) >= most:
            raise InvalidRequest(
                f"an answer of {len(output_token_ids)} tokens cannot go on: it may have {most}, so it has ended"
            )
        last, stops = output_token_ids[-1], {*params.stop_token_ids, *(() if params.ignore_eos else eos)}
        if last in stops and len(output_token_ids) >= params.min_tokens:
            raise InvalidRequest(f"an answer that ends in the stop token {last} cannot go on: it has ended")

    def _checked_prompt(self, given: Any, max_tokens: int) -> list[int]:
        if hasattr(given, "tolist"):  # numpy and torch
            given = given.tolist()
        if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
            raise InvalidRequest(f"a prompt must be a sequence of token ids here, not {type(given).__name__}")
        prompt = list(given)
        if not prompt:
            raise EmptyPrompt("the prompt is empty; it needs at least one token").with_hint("at least one token")
        if not all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
            wrong = next(token for token in prompt if not isinstance(token, int) or isinstance(token, bool))
            raise InvalidRequest(f"a prompt must be a flat sequence of integers; it holds {wrong!r}")
        self._check_range(prompt)
        if len(prompt) >= max_tokens:
            name = "max_model_len" if max_tokens == self.limits.max_model_len else "max_length"
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; {max_tokens - 1} leave room for an answer ({name}={max_tokens})"
            ).with_hint(f"at most {max_tokens - 1} tokens, {len(prompt) - max_tokens + 1} less")
        return prompt

    def _check_range(self, token_ids: Sequence[int]) -> None:
        low, high = min(token_ids), max(token_ids)
        if low < 0 or high >= self.limits.vocab_size:
            wrong = low if low < 0 else high
            raise TokenOutOfRange(
                f"token id {wrong} is out of range: the model has ids 0 to {self.limits.vocab_size - 1}"
            ).with_hint(f"0 to {self.limits.vocab_size - 1}")

    def _check_params(self, params: SamplingParams) -> None:
        if not isinstance(params, SamplingParams):
            raise InvalidRequest(f"sampling_params must be a SamplingParams, not {type(params).__name__}")
        vocab = self.limits.vocab_size
        for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
            wrong = [token for token in ids if token >= vocab]
            if wrong:
                raise InvalidParameter(name, wrong, f"token ids below the model's {vocab}")
        most = vocab - 1
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(params, name)
            if value is not None and value > most:
                raise InvalidParameter(name, value, f"at most {most}, the model's other tokens")
