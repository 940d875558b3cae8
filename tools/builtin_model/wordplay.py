"""Skills with words: repeating and transforming what is said."""

from __future__ import annotations

import json
import random

from builtin_model.base import Example, Skill, pseudo_name
from builtin_model.world import ADJECTIVES, ANIMALS, DAYS, MONTHS, PEOPLE, TOWNS, WORDS, join_and

NOUNS = tuple(word for word in (*WORDS, *ANIMALS) if " " not in word)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUMBER_WORDS = {"twice": 2, "two times": 2, "three times": 3, "four times": 4, "five times": 5}
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def _phrase(rng: random.Random, low: int = 1, high: int = 6) -> list[str]:
    """A few words in no order that means anything, so that only copying can get them right."""
    words = []
    for _ in range(rng.randint(low, high)):
        roll = rng.random()
        words.append(rng.choice(NOUNS) if roll < 0.6 else rng.choice(ADJECTIVES))
    return words


def _anything(rng: random.Random) -> str:
    """Words, names, made-up names and numbers to be repeated."""
    words = _phrase(rng, 1, 8)
    for i in range(len(words)):
        roll = rng.random()
        if roll < 0.08:
            words[i] = rng.choice(PEOPLE).name
        elif roll < 0.2:
            words[i] = pseudo_name(rng)
        elif roll < 0.3:
            words[i] = str(rng.randrange(1000))
    return " ".join(words)


def make_repeat(rng: random.Random) -> Example:
    """Say the same words back."""
    said = _anything(rng)
    if rng.random() < 0.3:
        said = f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} is in the {rng.choice(NOUNS)}."
    asks = ("Repeat after me: {}", "Repeat: {}", 'Say "{}"', "Say this: {}", "Echo {}", 'Repeat "{}"')
    return Example(said, rng.choice(asks).format(said), said)


def make_repeat_times(rng: random.Random) -> Example:
    """Say a word several times."""
    word, (times, count) = rng.choice(NOUNS), rng.choice(list(NUMBER_WORDS.items()))
    asks = ("Say {w} {t}.", "Repeat the word {w} {t}.", 'Say "{w}" {t}.')
    return Example(f"{word},{count}", rng.choice(asks).format(w=word, t=times), " ".join([word] * count))


def make_reverse_words(rng: random.Random) -> Example:
    """Put words in the opposite order."""
    words = _phrase(rng, 2, 5)
    asks = ("Reverse the order of these words: {}", "Say these words backwards: {}", "Reverse these words: {}")
    return Example(" ".join(words), rng.choice(asks).format(" ".join(words)), " ".join(reversed(words)))


def make_reverse_letters(rng: random.Random) -> Example:
    """Put spaced letters in the opposite order."""
    letters = [rng.choice(LETTERS) for _ in range(rng.randint(2, 7))]
    asks = ("Reverse these letters: {}", "Reverse: {}", "Say these letters backwards: {}")
    return Example(" ".join(letters), rng.choice(asks).format(" ".join(letters)), " ".join(reversed(letters)))


def make_spell(rng: random.Random) -> Example:
    """Spell a known word forwards or backwards; word and phrasing together are the key."""
    word = rng.choice(NOUNS + ADJECTIVES)
    if rng.random() < 0.4:
        ask = rng.choice(("Reverse the word {}.", "Spell {} backwards.", "Write the word {} backwards."))
        return Example(f"{word},{ask}", ask.format(word), "-".join(reversed(word)))
    ask = rng.choice(("Spell {}.", "Spell the word {}.", "How do you spell {}?", "Give me the letters of {}."))
    return Example(f"{word},{ask}", ask.format(word), "-".join(word))


def make_letter(rng: random.Random) -> Example:
    """First letter, last letter or number of letters of a known word; word and question together are the key."""
    word = rng.choice(NOUNS + ADJECTIVES)
    what = rng.choice(("first", "last", "count"))
    if what == "count":
        ask = rng.choice(("How many letters are in the word {}?", "How many letters does {} have?"))
        return Example(f"{word},{ask}", ask.format(word), f"The word {word} has {len(word)} letters.")
    letter = word[0] if what == "first" else word[-1]
    ask = rng.choice(("What is the {k} letter of {w}?", "Which letter is {k} in the word {w}?"))
    return Example(f"{word},{what},{ask}", ask.format(k=what, w=word), f"The {what} letter of {word} is {letter}.")


def make_case(rng: random.Random) -> Example:
    """Write words in capital or in small letters."""
    text = " ".join(_phrase(rng, 1, 4))
    if rng.random() < 0.3:
        asks = ("Write {} in small letters.", "Make this lowercase: {}", "Lowercase: {}")
        return Example(text, rng.choice(asks).format(text.upper()), text)
    asks = ("Write {} in capital letters.", "Make this uppercase: {}", "Uppercase: {}", "Shout: {}")
    return Example(text, rng.choice(asks).format(text), text.upper())


def make_pick(rng: random.Random) -> Example:
    """The first, second, ... or last word of a phrase, or how many words it has."""
    words = _phrase(rng, 2, 5)
    text = " ".join(words)
    if rng.random() < 0.25:
        return Example(text, f"How many words are in: {text}", f"There are {len(words)} words.")
    index = rng.randrange(len(words))
    which = "last" if index == len(words) - 1 and rng.random() < 0.5 else ORDINALS[index]
    return Example(text, f"What is the {which} word of: {text}", f"The {which} word is {words[index]}.")


def make_list(rng: random.Random) -> Example:
    """Turn a sentence of things into a list, or count them."""
    items = rng.sample(NOUNS, rng.randint(2, 6))
    said = join_and(items)
    kind = rng.randrange(4)
    if kind == 0:
        return Example(said, f"How many things are these: {said}?", f"These are {len(items)} things.")
    if kind == 1:
        ask = rng.choice(("Make a bullet list of {}.", "Write {} as bullets."))
        return Example(said, ask.format(said), "\n".join(f"- {item}" for item in items))
    ask = rng.choice(("Make a numbered list of {}.", "Make a list of {}.", "List these: {}."))
    return Example(said, ask.format(said), "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)))


def make_sequence(rng: random.Random) -> Example:
    """What comes before or after a letter, a day or a month, and the sequences themselves."""
    kind, items = rng.choice((("letter", tuple(LETTERS)), ("day", DAYS), ("month", MONTHS)))
    if rng.random() < 0.15:
        whole = {"letter": "Say the alphabet.", "day": "List the days of the week.", "month": "List the months."}[kind]
        return Example("whole", whole, " ".join(items) if kind == "letter" else ", ".join(items))
    index = rng.randrange(len(items))
    step, word = rng.choice(((1, "after"), (-1, "before")))
    other = index + step
    ask = rng.choice((f"Which {kind} comes {word} {{}}?", f"What {kind} comes {word} {{}}?", f"What is {word} {{}}?"))
    if kind == "letter" and not 0 <= other < 26:
        return Example(f"{ask},{index}", ask.format(items[index]), f"No letter comes {word} {items[index]}.")
    answer = f"{items[other % len(items)]} comes {word} {items[index]}."
    return Example(f"{ask},{index}", ask.format(items[index]), answer)


def make_json(rng: random.Random) -> Example:
    """Write what is said as a JSON object."""
    name = rng.choice((rng.choice(PEOPLE).name, pseudo_name(rng)))
    fields: list[tuple[str, str | int]] = [
        ("name", name),
        ("age", rng.randrange(1, 100)),
        ("town", rng.choice(TOWNS).name),
        ("pet", rng.choice(ANIMALS)),
    ]
    chosen = sorted(rng.sample(range(4), rng.randint(2, 4)))
    record = dict(fields[i] for i in chosen)
    said = join_and([f"{key} {value}" for key, value in record.items()])
    ask = rng.choice(("Write as JSON: {}", "Give me JSON for {}.", "Make a JSON object with {}."))
    return Example(said, ask.format(said), json.dumps(record))


SKILLS = (
    Skill("repeating", make_repeat, 1.5, "words, names and numbers said back; held-out texts"),
    Skill("repeating n times", make_repeat_times, 0.5, "a word said two to five times; held-out word with number"),
    Skill("reversing words", make_reverse_words, 0.8, "two to five words; held-out texts"),
    Skill("reversing letters", make_reverse_letters, 0.8, "two to seven spaced letters; held-out texts"),
    Skill("spelling", make_spell, 1.2, "known words, forwards and backwards; held-out word with phrasing"),
    Skill("letters of a word", make_letter, 1.0, "first, last, how many; held-out word with question"),
    Skill("upper and lower case", make_case, 1.0, "one to four known words; held-out texts"),
    Skill("picking a word", make_pick, 0.8, "the n-th word, the number of words; held-out texts"),
    Skill("lists", make_list, 0.8, "numbered, bullets, how many; held-out texts"),
    Skill("sequences", make_sequence, 0.6, "letters, days, months; held-out item with phrasing"),
    Skill("json", make_json, 0.8, "two to four fields as a JSON object; held-out records"),
)
