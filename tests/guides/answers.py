"""What the tests of guides share: a vocabulary, and walks through a guide."""

from __future__ import annotations

import random

import numpy as np

from headrace.engine.request import Request
from headrace.text import Tokenizer
from headrace.text.guides import Guide, GuideCompiler, GuideMask, GuideSpec
from tests.engine.simulation import Simulation

VOCAB_SIZE = 420
EOS = 2

PERSON = GuideSpec.json_schema(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


def ids_of(mask: GuideMask) -> list[int]:
    """Ids that a mask allows."""
    return np.flatnonzero(np.unpackbits(mask.bits.view(np.uint8), bitorder="little")).tolist()


def random_answer(guide: Guide, seed: int, most: int = 500) -> tuple[list[int], bool]:
    """A walk by equal chances, which ends as soon as it may with one chance in eight; whether it is complete."""
    rng, tokens = random.Random(seed), list[int]()
    while len(tokens) < most:
        mask = guide.mask(tokens)
        if mask.is_final or (mask.is_complete and rng.random() < 0.125):
            return tokens, True
        tokens.append(rng.choice(ids_of(mask)))
    return tokens, False


def accepts(compiler: GuideCompiler, tokenizer: Tokenizer, spec: GuideSpec, text: str) -> bool:
    """Whether a text, token by token of bytes, is an answer of a guide."""
    guide, tokens = compiler.compile(spec), list[int]()
    data = text.encode()
    while data:
        fitting = [
            (len(spelled), token)
            for token in ids_of(guide.mask(tokens))
            if data.startswith(spelled := byte_spelling(tokenizer, token)) and spelled
        ]
        if not fitting:
            return False
        length, token = max(fitting)
        tokens.append(token)
        data = data[length:]
    return guide.mask(tokens).is_complete


def byte_spelling(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes of a byte-level token."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    spelled = tokenizer.inner.convert_ids_to_tokens(token)
    return b"" if spelled is None or any(c not in byte_of for c in spelled) else bytes(byte_of[c] for c in spelled)


def make_guided(
    sim: Simulation, compiler: GuideCompiler, spec: GuideSpec, prompt: list[int], **options: object
) -> Request:
    """A request of a simulation, with its compiled guide."""
    request = sim.make(prompt, guide=spec, **{"eos": frozenset({EOS}), **options})  # type: ignore[arg-type]
    request.guide = compiler.compile(spec)
    return request
