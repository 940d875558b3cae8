"""Offline workloads by name and seed: the same name and seed is the same requests, token for token, on any machine.

Sources: `offline256` is nano-vllm's published benchmark; the others were made for CPUs, where it would take hours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from headrace.errors import ConfigError

MIN_VOCAB_SIZE = 31_000
"""Every token id of every workload is below this."""

_FIRST_TOKEN_ID = 10
"""Below it live the special tokens of most models."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt and how many tokens to generate after it; end-of-sequence tokens are ignored."""

    prompt_token_ids: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests that all arrive at once."""

    name: str
    seed: int
    requests: tuple[Request, ...]

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts, shared prefixes counted every time."""
        return sum(len(request.prompt_token_ids) for request in self.requests)

    @property
    def num_output_tokens(self) -> int:
        """Tokens that an engine has to generate."""
        return sum(request.max_tokens for request in self.requests)

    @property
    def max_model_len(self) -> int:
        """Tokens, prompt and output, of the longest request."""
        return max(len(request.prompt_token_ids) + request.max_tokens for request in self.requests)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a workload is made from a random source, and the seed that published figures used."""

    description: str
    seed: int
    build: Callable[[Random], list[Request]]


def _uniform(count: int, prompt: tuple[int, int], output: tuple[int, int]) -> Callable[[Random], list[Request]]:
    """Random prompts, lengths of prompts and outputs uniform in the closed ranges."""

    def build(random: Random) -> list[Request]:
        requests = []
        for _ in range(count):
            length = random.randint(*prompt)  # the order of the draws is part of the workload
            token_ids = _tokens(random, length)
            requests.append(Request(token_ids, random.randint(*output)))
        return requests

    return build


def _shared_prefix(count: int, prefix: int, own: int, output: int) -> Callable[[Random], list[Request]]:
    """Prompts of one common prefix and some tokens of their own."""

    def build(random: Random) -> list[Request]:
        shared = _tokens(random, prefix)
        return [Request(shared + _tokens(random, own), output) for _ in range(count)]

    return build


def _tokens(random: Random, count: int) -> tuple[int, ...]:
    return tuple(random.randrange(_FIRST_TOKEN_ID, MIN_VOCAB_SIZE) for _ in range(count))


def _nano_vllm(random: Random) -> list[Request]:
    """The draws of nano-vllm's bench.py: all prompts, then all output lengths."""
    prompts = [tuple(random.randint(0, 10_000) for _ in range(random.randint(100, 1024))) for _ in range(256)]
    return [Request(prompt, random.randint(100, 1024)) for prompt in prompts]


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "offline256": Recipe("256 requests, prompts and outputs uniform 100..1024", 0, _nano_vllm),
        "W1": Recipe("64 requests, prompts 16..256, outputs 16..128", 1, _uniform(64, (16, 256), (16, 128))),
        "W2": Recipe("32 requests, 192 shared + 32 own prompt tokens, 32 out", 2, _shared_prefix(32, 192, 32, 32)),
        "W1m": Recipe("the first 16 requests of W1", 1, _uniform(16, (16, 256), (16, 128))),
        "W2m": Recipe("the first 16 requests of W2, 16 out", 2, _shared_prefix(16, 192, 32, 16)),
    }
)


def workload(name: str, seed: int | None = None) -> Workload:
    """Make a workload.

    Args:
        name: one of `RECIPES`.
        seed: another one gives other tokens and lengths of the same kind; None takes the published one.

    Raises:
        ConfigError: there is no such workload; the message lists those there are.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise ConfigError(f"unknown workload {name!r}; there are {', '.join(RECIPES)}")
    seed = recipe.seed if seed is None else seed
    return Workload(name, seed, tuple(recipe.build(Random(seed))))
