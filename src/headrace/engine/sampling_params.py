"""What a caller may ask of sampling: validated once, then frozen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from headrace.errors import InvalidParameter
from headrace.text.guides.spec import GuideSpec

MAX_LOGPROBS = 100
"""Most alternatives that `logprobs` and `prompt_logprobs` may ask for, per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one request is sampled.

    The order of operations on a row of logits is: repetition penalty, frequency and presence penalty, logit bias,
    the ban of stop tokens under `min_tokens`, the guide, then (unless greedy) temperature, `top_k`, `top_p`, `min_p`,
    draw.

    Attributes:
        max_tokens: most tokens to generate; None means as many as the model's length leaves room for.
        temperature: 0 is greedy.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of most likely tokens whose probability reaches `top_p`.
        min_p: drop tokens less likely than `min_p` times the most likely one.
        n: independent completions of the prompt.
        seed: makes the draws reproducible: a draw is a function of (seed, position), the same alone and in any batch.
            None picks one at random.
        stop: strings that end the text; they are not part of it.
        stop_token_ids: token ids that end the text, besides the model's own end-of-sequence ids.
        ignore_eos: go on after the model's own end-of-sequence ids.
        min_tokens: before so many tokens, no end-of-sequence or stop token is sampled and no stop string ends the text.
        presence_penalty: subtracted once from the logit of each token already generated.
        frequency_penalty: subtracted from the logit of each generated token, times its count.
        repetition_penalty: divides positive and multiplies negative logits of tokens in the prompt or the output.
        logit_bias: added to the logits of the given token ids.
        logprobs: also return the log-probability of each generated token and of this many most likely ones.
            Log-probabilities are of the model's raw distribution, before penalties, bias and temperature.
        prompt_logprobs: the same for each token of the prompt but the first.
        guide: what the answer must be (JSON of a schema, a regular expression, a grammar, a choice). End-of-sequence
            and stop tokens may come where the answer may end, and when nothing else can come it ends with "stop",
            without such a token where there is none to choose (none is known, or `ignore_eos`). `max_tokens`, stop
            strings, and a stop token that is also a part of the text, cut it where they cut any answer. A guide that
            is complete before `min_tokens`, or allows only what is banned, fails the request.

    Raises:
        InvalidParameter: a value is out of its range; the message names it and what is allowed.
    """

    max_tokens: int | None = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    guide: GuideSpec | None = None

    def __post_init__(self) -> None:
        """Normalise sequences to tuples and check every range."""
        self._normalise()
        _integer("max_tokens", self.max_tokens, low=1, optional=True)
        _number("temperature", self.temperature, low=0.0)
        _integer("top_k", self.top_k, low=0, note="0 keeps all tokens")
        _number("top_p", self.top_p, low=0.0, high=1.0, low_open=True)
        _number("min_p", self.min_p, low=0.0, high=1.0)
        _integer("n", self.n, low=1, high=1024)
        _integer("seed", self.seed, low=-(2**63), high=2**64 - 1, optional=True)
        _integer("min_tokens", self.min_tokens, low=0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter("min_tokens", self.min_tokens, f"at most max_tokens={self.max_tokens}")
        _number("presence_penalty", self.presence_penalty, low=-2.0, high=2.0)
        _number("frequency_penalty", self.frequency_penalty, low=-2.0, high=2.0)
        _number("repetition_penalty", self.repetition_penalty, low=0.0, low_open=True)
        _integer("logprobs", self.logprobs, low=0, high=MAX_LOGPROBS, optional=True)
        _integer("prompt_logprobs", self.prompt_logprobs, low=0, high=MAX_LOGPROBS, optional=True)
        if self.guide is not None and not isinstance(self.guide, GuideSpec):
            raise InvalidParameter(
                "guide", self.guide, "a GuideSpec, as GuideSpec.json_schema({...}) makes one, or None"
            )

    def _normalise(self) -> None:
        given: Any = self.stop
        stop = (given,) if isinstance(given, str) else given
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) and s for s in stop):
            raise InvalidParameter("stop", self.stop, "a string, or a list of strings that are not empty")
        ids: Any = self.stop_token_ids
        if not isinstance(ids, list | tuple) or not all(_is_int(i) and i >= 0 for i in ids):
            raise InvalidParameter("stop_token_ids", ids, "a list of token ids of 0 or more")
        bias: Any = self.logit_bias if self.logit_bias is not None else {}
        if not isinstance(bias, Mapping):
            raise InvalidParameter("logit_bias", bias, "a mapping from token id to a finite number")
        for token, value in bias.items():
            if not _is_int(token) or token < 0 or not _is_number(value) or not math.isfinite(value):
                raise InvalidParameter("logit_bias", {token: value}, "a mapping from token id to a finite number")
        object.__setattr__(self, "stop", tuple(stop))
        object.__setattr__(self, "stop_token_ids", tuple(int(i) for i in ids))
        object.__setattr__(self, "logit_bias", MappingProxyType({int(k): float(v) for k, v in bias.items()}))

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken and nothing is drawn."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens so far change the logits."""
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0 or self.repetition_penalty != 1.0


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integer(
    name: str, value: Any, *, low: int, high: int | None = None, optional: bool = False, note: str = ""
) -> None:
    if value is None and optional:
        return
    if not _is_int(value) or value < low or (high is not None and value > high):
        upto = "" if high is None else f" and at most {high}"
        raise InvalidParameter(
            name, value, f"an integer of at least {low}{upto}{', or None' * optional}{f' ({note})' * bool(note)}"
        )


def _number(name: str, value: Any, *, low: float, high: float | None = None, low_open: bool = False) -> None:
    ok = _is_number(value) and math.isfinite(value) and (value > low if low_open else value >= low)
    if not ok or (high is not None and value > high):
        bound = f"{'more than' if low_open else 'at least'} {low:g}"
        raise InvalidParameter(
            name, value, f"a finite number of {bound}{'' if high is None else f' and at most {high:g}'}"
        )
