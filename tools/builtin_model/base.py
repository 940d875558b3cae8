"""What an example is, and which examples are held out.

The split is a property of the example alone: a checksum of its key. No list of
test prompts has to be kept, and no example can be on both sides.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from builtin_model.world import PERSON, TOWN

HELD_OUT_SHARE = 10  # one key in this many is held out

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    `key` is what must not be shared between the two sides of the split. It leaves
    out politeness and letter case, so that "12 + 7" and "please, what is 12 plus 7?"
    have one key and fall on one side together.
    """

    key: str
    prompt: str
    answer: str
    context: Turns = ()  # (role, content) pairs that come before the prompt


Maker = Callable[[random.Random], Example]
Check = Callable[[Example, str], bool]


def same_text(example: Example, answer: str) -> bool:
    """The usual check: the answer is right when it is the expected text."""
    return answer.strip() == example.answer


@dataclass(frozen=True)
class Skill:
    """A kind of question: how to make one, how often to train on it, how to mark it."""

    name: str
    make: Maker
    weight: float
    about: str
    check: Check = same_text
    never_trained: bool = False  # only for measuring: none of its examples are trained on


def is_held_out(skill: str, key: str) -> bool:
    """Whether an example is kept for measuring."""
    return zlib.crc32(f"{skill}|{key}".encode()) % HELD_OUT_SHARE == 0


def draw(skill: Skill, rng: random.Random, held_out: bool) -> Example:
    """One example of the wanted side of the split."""
    for _ in range(1000):
        example = skill.make(rng)
        if skill.never_trained or is_held_out(skill.name, example.key) == held_out:
            return example
    raise RuntimeError(f"skill {skill.name!r} has no example with held_out={held_out}")


OPENERS = ("Please tell me: ", "Hey, ", "Hello! ", "Quick question: ", "I wonder, ", "Can you tell me, ", "Okay. ")


def vary(question: str, rng: random.Random) -> str:
    """Ask as people ask: mostly plainly, at times with an opener, carelessly typed or without an end."""
    roll = rng.random()
    if roll < 0.12:
        opener = rng.choice(OPENERS)
        first = question[0] if opener[-2] in "!.:" else question[0].lower()
        return opener + first + question[1:]
    if roll < 0.20:
        return question.lower()
    if roll < 0.28:
        return question.rstrip("?.")
    return question


def pseudo_name(rng: random.Random) -> str:
    """A name that nobody and no town in the world has, made of syllables."""
    while True:
        syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))
        name = ("".join(syllables) + rng.choice(("", "", "n", "r", "s", "x", "th"))).capitalize()
        if name not in PERSON and name not in TOWN:
            return name
