"""What is sent: the same seed is the same requests, on any machine and to any server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from headrace.bench.serve.arrivals import Arrivals
from headrace.bench.serve.lengths import Lengths

Cutter = Callable[[str, int], str]
"""Text and a number of tokens → the beginning of the text with so many tokens."""

_TEXT = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many
then them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part
"""
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Mix:
    """What the requests are like.

    Attributes:
        prompt: lengths of the part of a prompt that is its own. output: most tokens to generate.
        prefix_tokens: length of a prefix that requests share. num_prefixes: how many different ones there are.
        num_turns: of a conversation; each turn's prompt holds all before it, answers included.
        cancel_ratio: share of the requests (0..1) whose client goes away in the middle of the answer.
        temperature: None leaves it to the server.
    """

    prompt: Lengths
    output: Lengths
    prefix_tokens: int = 0
    num_prefixes: int = 1
    num_turns: int = 1
    cancel_ratio: float = 0.0
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a conversation.

    Attributes:
        text: what the user says. max_tokens: of the answer. seed: for the server's sampling.
        cancel_after: the client goes away after so many pieces of the answer; None: it stays.
    """

    text: str
    max_tokens: int
    seed: int
    cancel_after: int | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, each sent when the answer to the one before is there.

    Attributes: at_s: when the first turn is sent, in seconds from the begin of the run.
    """

    at_s: float
    system: str
    turns: tuple[Turn, ...]


def plan(mix: Mix, arrivals: Arrivals, num_requests: int, seed: int, cut: Cutter) -> list[Conversation]:
    """Conversations with `num_requests` turns in all (the last one may be shorter), by time of arrival."""
    random = Random(seed)
    prefixes = [_words(random, mix.prefix_tokens, cut) for _ in range(mix.num_prefixes)]
    counts = [mix.num_turns] * (num_requests // mix.num_turns)
    if rest := num_requests % mix.num_turns:
        counts.append(rest)
    return [
        Conversation(at_s, random.choice(prefixes), tuple(_turn(mix, random, cut) for _ in range(count)))
        for at_s, count in zip(arrivals.times(len(counts), Random(seed + 1)), counts, strict=True)
    ]


def _turn(mix: Mix, random: Random, cut: Cutter) -> Turn:
    num_tokens, max_tokens = mix.prompt.draw(random), mix.output.draw(random)
    leaves, place = random.random() < mix.cancel_ratio, random.randint(1, max(1, max_tokens - 1))
    return Turn(_words(random, num_tokens, cut), max_tokens, random.getrandbits(31), place if leaves else None)


def _words(random: Random, num_tokens: int, cut: Cutter) -> str:
    if num_tokens == 0:
        return ""
    # A word is at least a token, and the space that stands before it belongs to it.
    return cut(" ".join(random.choices(_WORDS, k=num_tokens + 1)), num_tokens)


def cut_words(text: str, num_tokens: int) -> str:
    """A word for a token: how it is without a tokenizer at hand; what the server counted is what is reported."""
    return " ".join(text.split()[:num_tokens])


def cutter(tokenizer_file: str) -> Cutter:
    """Cuts by a `tokenizer.json`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)

    def cut(text: str, num_tokens: int) -> str:
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= num_tokens else text[: offsets[num_tokens - 1][1]]

    return cut
