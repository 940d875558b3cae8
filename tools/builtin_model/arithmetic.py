"""Skills with numbers: sums, worked sums, products, comparing, sorting, counting."""

from __future__ import annotations

import random

from builtin_model.base import Example, Skill

ADD_ASKS = ("What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "What is {a} plus {b}?", "Add {a} and {b}.")
SUB_ASKS = ("What is {a} - {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "What is {a} minus {b}?")
MUL_ASKS = (
    "What is {a} * {b}?",
    "{a} * {b}",
    "{a}*{b}",
    "{a} * {b} =",
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
)


def _below(rng: random.Random, limit: int) -> int:
    """A number below the limit, small ones more often than their share."""
    return rng.randrange(min(10, limit)) if rng.random() < 0.15 else rng.randrange(limit)


def make_addition(rng: random.Random) -> Example:
    """Two numbers below 100; the pair in either order is the key, so a held-out pair is new in every phrasing."""
    a, b = _below(rng, 100), _below(rng, 100)
    return Example(f"{min(a, b)},{max(a, b)}", rng.choice(ADD_ASKS).format(a=a, b=b), f"{a} + {b} = {a + b}.")


def make_subtraction(rng: random.Random) -> Example:
    """Two numbers below 100, the larger first."""
    b, a = sorted((_below(rng, 100), rng.randrange(100)))
    return Example(f"{a},{b}", rng.choice(SUB_ASKS).format(a=a, b=b), f"{a} - {b} = {a - b}.")


def make_multiplication(rng: random.Random) -> Example:
    """The table up to ten: too small a set to hold pairs out of, so pair and phrasing together are the key."""
    a, b, ask = rng.randrange(11), rng.randrange(11), rng.choice(MUL_ASKS)
    return Example(f"{a},{b},{ask}", ask.format(a=a, b=b), f"{a} * {b} = {a * b}.")


def worked_sum(a: int, b: int) -> str:
    """A sum done digit by digit, as on paper: a small model can do each step, not all at once."""
    steps, carry = [], 0
    for place, name in enumerate(("Ones", "Tens", "Hundreds")):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        terms = f"{x} + {y}" + (" + 1" if carry else "")
        steps.append(f"{name}: {terms} = {total}.")
        carry = total // 10
    return f"{' '.join(steps)} {a} + {b} = {a + b}."


def make_long_addition(rng: random.Random) -> Example:
    """Two numbers of three digits, with the work shown."""
    a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
    return Example(f"{min(a, b)},{max(a, b)}", rng.choice(ADD_ASKS).format(a=a, b=b), worked_sum(a, b))


def make_compare(rng: random.Random) -> Example:
    """Which of two numbers is larger, or whether one is."""
    limit = rng.choice((10, 100, 100, 1000))
    a, b = rng.sample(range(limit), 2)
    low, high = sorted((a, b))
    key = f"{a},{b}"
    kind = rng.randrange(4)
    if kind == 0:
        return Example(key, f"Which is larger, {a} or {b}?", f"{high} is larger than {low}.")
    if kind == 1:
        return Example(key, f"Which is smaller, {a} or {b}?", f"{low} is smaller than {high}.")
    if kind == 2:
        reply = f"Yes, {a} is larger than {b}." if a > b else f"No, {a} is smaller than {b}."
        return Example(key, f"Is {a} larger than {b}?", reply)
    reply = f"Yes, {a} is smaller than {b}." if a < b else f"No, {a} is larger than {b}."
    return Example(key, f"Is {a} smaller than {b}?", reply)


def make_sort(rng: random.Random) -> Example:
    """Three to five numbers put in order."""
    numbers = rng.sample(range(100), rng.choice((3, 3, 3, 4, 5)))
    listed = ", ".join(map(str, numbers))
    down = rng.random() < 0.25
    asks = ("Sort these numbers: {}", "Sort {}.", "Put {} in order.", "Sort the numbers {}.")
    ask = rng.choice(asks).format(listed)
    if down:
        ask = f"Sort from large to small: {listed}"
    return Example(listed, ask, ", ".join(map(str, sorted(numbers, reverse=down))))


def make_extreme(rng: random.Random) -> Example:
    """The largest or the smallest of three or four numbers."""
    numbers = rng.sample(range(100), rng.choice((3, 3, 4)))
    *most, last = map(str, numbers)
    word, value = rng.choice((("largest", max(numbers)), ("smallest", min(numbers))))
    return Example(
        f"{numbers}", f"What is the {word} of {', '.join(most)} and {last}?", f"The {word} number is {value}."
    )


def make_count(rng: random.Random) -> Example:
    """Count up or down between two numbers."""
    start, length = _below(rng, 90), rng.randrange(2, 16)
    if rng.random() < 0.2:
        start, length = 1, rng.randrange(2, 31)
    end = start + length
    numbers = list(range(start, end + 1))
    if start == 1 and rng.random() < 0.5:
        return Example(f"{start},{end}", f"Count to {end}.", ", ".join(map(str, numbers)))
    if rng.random() < 0.3:
        return Example(f"{end},{start}", f"Count down from {end} to {start}.", ", ".join(map(str, numbers[::-1])))
    return Example(f"{start},{end}", f"Count from {start} to {end}.", ", ".join(map(str, numbers)))


def make_next_number(rng: random.Random) -> Example:
    """The number before or after another."""
    number = rng.randrange(1, 1000)
    if rng.random() < 0.5:
        return Example(f"{number}+", f"What number comes after {number}?", f"{number + 1} comes after {number}.")
    return Example(f"{number}-", f"What number comes before {number}?", f"{number - 1} comes before {number}.")


SKILLS = (
    Skill("addition", make_addition, 2.5, "a + b below 100; held-out pairs"),
    Skill("subtraction", make_subtraction, 2.5, "a - b below 100, a >= b; held-out pairs"),
    Skill("multiplication", make_multiplication, 0.8, "table up to 10; held-out pair with phrasing"),
    Skill("long addition", make_long_addition, 1.3, "three digits, work shown; held-out pairs"),
    Skill("comparing", make_compare, 1.0, "larger or smaller, below 1000; held-out pairs"),
    Skill("sorting", make_sort, 1.2, "three to five numbers below 100; held-out lists"),
    Skill("largest of", make_extreme, 0.8, "largest or smallest of three or four; held-out lists"),
    Skill("counting", make_count, 0.6, "up and down; held-out ranges"),
    Skill("next number", make_next_number, 0.6, "before and after, below 1000; held-out numbers"),
)
