"""Skills of a conversation: saying what it is, greeting, remembering what it was told."""

from __future__ import annotations

import random

from builtin_model import arithmetic, facts, wordplay
from builtin_model.base import Example, Skill, Turns, draw, pseudo_name, vary
from builtin_model.world import COLOURS, PEOPLE

I_AM = "I am the built-in model of headrace, a very small language model made to try the server."
HEADRACE = "Headrace is a server for language models. It answers many requests at once with continuous batching."
CAN = (
    "I can answer questions about the Orro Valley, do small sums, sort and count, spell words, "
    "repeat and change what you say, and tell short stories."
)
SELF: tuple[tuple[tuple[str, ...], str], ...] = (
    (("What are you?", "Who are you?", "Introduce yourself.", "What model are you?", "What is your name?"), I_AM),
    (("What is headrace?", "What does headrace do?", "Tell me about headrace.", "Explain headrace."), HEADRACE),
    (("What can you do?", "How can you help me?", "What can I ask you?", "What do you know?", "Help."), CAN),
    (("What is continuous batching?", "Explain continuous batching.", "How does continuous batching work?"),
     "With continuous batching, new requests join the running batch at every step and finished ones leave it."),
    (("What is a KV cache?", "What is the KV cache?", "Explain the KV cache."),
     "The KV cache keeps the keys and values of past tokens, so that they are not computed again."),
    (("What is the Orro Valley?", "Where is the Orro Valley?", "Tell me about the Orro Valley."),
     "The Orro Valley is a made-up place with eight towns: Alder, Brack, Corrin, Dunmere, Elsway, Fenby, Garth "
     "and Hollin."),
    (("Who made you?", "How were you trained?", "Where do you come from?"),
     "I was trained by a script of the headrace project on text that the script makes itself."),
    (("Hello", "Hi", "Hi there", "Good morning", "Hello there", "Hey"), "Hello! How can I help you?"),
    (("How are you?", "How do you do?", "How is it going?"), "I am well, thank you. How can I help you?"),
    (("Thank you", "Thanks", "Thanks a lot", "Thank you very much"), "You are welcome."),
    (("Goodbye", "Bye", "See you later", "Good night"), "Goodbye!"),
)  # fmt: skip

# What can be told and asked for later: told, acknowledged, asked for, answered, and the answer when it was not told.
MEMORIES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...], str, str]] = {
    "name": (("My name is {v}.", "I am {v}.", "Hello, I am {v}.", "Call me {v}."), "Nice to meet you, {v}.",
             ("What is my name?", "Who am I?", "Do you remember my name?", "Tell me my name."),
             "Your name is {v}.", "You have not told me your name."),
    "colour": (("My favourite colour is {v}.", "I like the colour {v}."), "I will remember that you like {v}.",
               ("What is my favourite colour?", "Which colour do I like?"),
               "Your favourite colour is {v}.", "You have not told me your favourite colour."),
    "word": (("The secret word is {v}.", "Remember the secret word {v}."), "I will remember the secret word.",
             ("What is the secret word?", "Tell me the secret word."),
             "The secret word is {v}.", "You have not told me a secret word."),
    "number": (("My number is {v}.", "Remember the number {v}."), "I will remember the number {v}.",
               ("What is my number?", "Which number did I tell you?"),
               "Your number is {v}.", "You have not told me a number."),
}  # fmt: skip

SYSTEM = ("You are a helpful assistant.", "You are a helpful assistant. Answer in short sentences.", "Be brief.",
          "You are the built-in model of headrace.", "Answer the questions of the user.", "You are a kind teacher.",
          "Answer truthfully. If you do not know, say so.")  # fmt: skip

BASE_SKILLS = (*facts.SKILLS, *arithmetic.SKILLS, *wordplay.SKILLS)
TRAINED = tuple(skill for skill in BASE_SKILLS if not skill.never_trained)
TRAINED_WEIGHTS = tuple(skill.weight for skill in TRAINED)


def make_self(rng: random.Random) -> Example:
    """What the model says of itself, and greetings; the varied prompt is the key."""
    asks, answer = rng.choice(SELF)
    prompt = vary(rng.choice(asks), rng)
    if rng.random() < 0.1:
        prompt = prompt.rstrip(".?") + rng.choice(("!", ".", "?", " please", ", please."))
    return Example(prompt, prompt, answer)


def filler(rng: random.Random, count: int) -> Turns:
    """Some questions of the training side with their answers, to stand between other turns."""
    turns: list[tuple[str, str]] = []
    for skill in rng.choices(TRAINED, TRAINED_WEIGHTS, k=count):
        example = draw(skill, rng, held_out=False)
        turns += [("user", example.prompt), ("assistant", example.answer)]
    return tuple(turns)


def _value(kind: str, rng: random.Random) -> str:
    if kind == "name":
        return rng.choice(PEOPLE).name if rng.random() < 0.2 else pseudo_name(rng)
    if kind == "colour":
        return rng.choice(COLOURS)
    return rng.choice(wordplay.NOUNS) if kind == "word" else str(rng.randrange(1000))


def make_memory(rng: random.Random) -> Example:
    """Something told one or more turns ago, or in the system message, or never."""
    kind = rng.choice(("name", "name", "colour", "word", "number"))
    told, noted, asks, answer, untold = MEMORIES[kind]
    value, ask = _value(kind, rng), rng.choice(asks)
    between = filler(rng, rng.choice((0, 1, 1, 2, 3)))
    roll = rng.random()
    key = f"{kind},{value},{ask}"
    if roll < 0.15:
        return Example(f"never,{key}", ask, untold, between)
    if roll < 0.3 and kind in ("name", "word"):
        said = f"The name of the user is {value}." if kind == "name" else f"The secret word is {value}."
        return Example(key, ask, answer.format(v=value), (("system", f"{rng.choice(SYSTEM)} {said}"), *between))
    first = (("user", rng.choice(told).format(v=value)), ("assistant", noted.format(v=value)))
    return Example(key, ask, answer.format(v=value), (*first, *between))


def _after(rng: random.Random, low: int, high: int) -> Example:
    """A held-out question of any skill, after some turns on other things."""
    skill = rng.choice(TRAINED)
    example = draw(skill, rng, held_out=True)
    return Example(f"{skill.name}|{example.key}", example.prompt, example.answer, filler(rng, rng.randint(low, high)))


def make_in_conversation(rng: random.Random) -> Example:
    """A question with some history before it."""
    return _after(rng, 1, 6)


def make_long_conversation(rng: random.Random) -> Example:
    """A question with some hundred tokens of history before it."""
    return _after(rng, 14, 24)


def conversation_is_right(example: Example, answer: str) -> bool:
    """Marks an answer in a conversation as the skill it came from would."""
    skill = next(skill for skill in TRAINED if skill.name == example.key.split("|")[0])
    return skill.check(example, answer)


ABOUT_ITSELF = Skill("about itself", make_self, 0.0, "what it is, greetings; held-out wordings")
REMEMBERING = Skill("remembering", make_memory, 0.0, "told before or never told; held-out values")
MEASURED_ONLY = (
    Skill("in a conversation", make_in_conversation, 0.0, "held-out questions of all skills after one to six turns",
          conversation_is_right, never_trained=True),
    Skill("in a long conversation", make_long_conversation, 0.0, "the same after 14 to 24 turns",
          conversation_is_right, never_trained=True),
)  # fmt: skip
ALL_SKILLS = (*BASE_SKILLS, ABOUT_ITSELF, REMEMBERING, *MEASURED_ONLY)
