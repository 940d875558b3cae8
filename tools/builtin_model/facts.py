"""Skills about the made-up world: facts both ways round, yes or no, descriptions, stories, what is not known."""

from __future__ import annotations

import random
import re

from builtin_model.base import Example, Skill, pseudo_name, vary
from builtin_model.world import ANIMALS, COLOURS, PEOPLE, PERSON, TOWNS, Person, Town, join_and, with_article

# For each relation the phrasings that are trained on; {n} is the person's name.
ASKS: dict[str, tuple[str, ...]] = {
    "town": ("Where does {n} live?", "In which town does {n} live?", "What is the home town of {n}?",
             "Where is the home of {n}?", "Which town is {n} from?", "Where can I find {n}?"),
    "job": ("What does {n} do?", "What is the job of {n}?", "What is {n}'s job?",
            "What work does {n} do?", "What does {n} do for a living?", "Which job does {n} have?"),
    "food": ("What does {n} like?", "What does {n} like to eat?", "What is {n}'s favourite food?",
             "Which food does {n} like?", "What is the favourite food of {n}?", "What food does {n} like most?"),
    "colour": ("What is {n}'s favourite colour?", "Which colour does {n} like?", "What colour does {n} like most?",
               "What is the favourite colour of {n}?", "Which colour is {n}'s favourite?"),
    "pet": ("What pet does {n} have?", "Which animal does {n} have?", "What is {n}'s pet?",
            "Which pet does {n} have?", "What animal lives with {n}?", "Does {n} have a pet?"),
    "pet_name": ("What is the name of {n}'s pet?", "What is {n}'s pet called?", "How is {n}'s pet called?",
                 "What name does {n}'s pet have?", "Tell me the name of {n}'s pet."),
}  # fmt: skip

# Phrasings that are never trained on: they measure whether the meaning was learned or only the form.
UNSEEN_ASKS: dict[str, tuple[str, ...]] = {
    "town": ("What town does {n} live in?", "Where is {n} from?"),
    "job": ("What job does {n} have?", "What is the work of {n}?"),
    "food": ("What food does {n} like?", "What does {n} like most to eat?"),
    "colour": ("What colour does {n} like?", "Which is the favourite colour of {n}?"),
    "pet": ("What animal does {n} have?", "What pet lives with {n}?"),
    "pet_name": ("Which name does {n}'s pet have?", "What is the pet of {n} called?"),
}

TOWN_ASKS: dict[str, tuple[str, ...]] = {
    "landmark": ("What can I see in {n}?", "What is there to see in {n}?", "What is special in {n}?",
                 "What landmark does {n} have?"),
    "famous_for": ("What is {n} famous for?", "What is the town of {n} known for?", "What is {n} known for?",
                   "What does {n} make?"),
    "roofs": ("What colour are the roofs in {n}?", "Which colour do the roofs of {n} have?",
              "What colour are the roofs of {n}?"),
    "people": ("Who lives in {n}?", "Which people live in {n}?", "Name the people of {n}.", "Who is from {n}?"),
}  # fmt: skip


def state(person: Person, relation: str) -> str:
    """The one sentence that answers a question about a person."""
    return {
        "town": f"{person.name} lives in {person.town}.",
        "job": f"{person.name} is {person.job_phrase}.",
        "food": f"{person.name} likes {person.food}.",
        "colour": f"The favourite colour of {person.name} is {person.colour}.",
        "pet": f"{person.name} has {person.pet_phrase} called {person.pet_name}.",
        "pet_name": f"The {person.pet} of {person.name} is called {person.pet_name}.",
    }[relation]


def state_town(town: Town, relation: str) -> str:
    """The one sentence that answers a question about a town."""
    people = [person.name for person in PEOPLE if person.town == town.name]
    return {
        "landmark": f"In {town.name} you can see {town.landmark}.",
        "famous_for": f"{town.name} is famous for its {town.famous_for}.",
        "roofs": f"The roofs of {town.name} are {town.roofs}.",
        "people": f"{join_and(people)} live{'s' if len(people) == 1 else ''} in {town.name}.",
    }[relation]


def _ask_person(rng: random.Random, table: dict[str, tuple[str, ...]]) -> Example:
    person, relation = rng.choice(PEOPLE), rng.choice(tuple(table))
    ask = rng.choice(table[relation])
    return Example(f"{person.name},{ask}", vary(ask.format(n=person.name), rng), state(person, relation))


def make_person_fact(rng: random.Random) -> Example:
    """A fact about a person; person and phrasing together are the key."""
    return _ask_person(rng, ASKS)


def make_unseen_phrasing(rng: random.Random) -> Example:
    """A fact about a person in words that were never trained on for anyone."""
    return _ask_person(rng, UNSEEN_ASKS)


def make_town_fact(rng: random.Random) -> Example:
    """A fact about a town; town and phrasing together are the key."""
    town, relation = rng.choice(TOWNS), rng.choice(tuple(TOWN_ASKS))
    ask = rng.choice(TOWN_ASKS[relation])
    return Example(f"{town.name},{ask}", vary(ask.format(n=town.name), rng), state_town(town, relation))


def make_who(rng: random.Random) -> Example:
    """The person behind a job or a pet."""
    person = rng.choice(PEOPLE)
    asks = {
        "Who is the {j}?": "{n} is the {j}.",
        "What is the name of the {j}?": "{n} is the {j}.",
        "Who works as {J}?": "{n} is the {j}.",
        "Where does the {j} live?": "{n} is the {j} and lives in {t}.",
        "Which town does the {j} come from?": "{n} is the {j} and lives in {t}.",
        "Who has {P}?": "{n} has {P} called {m}.",
        "Whose pet is {m}?": "{m} is the {p} of {n}.",
        "Who is {m}?": "{m} is the {p} of {n}.",
        "Which animal is {m}?": "{m} is the {p} of {n}.",
    }
    ask = rng.choice(tuple(asks))
    values = {"n": person.name, "j": person.job, "J": person.job_phrase, "t": person.town}
    values |= {"p": person.pet, "P": person.pet_phrase, "m": person.pet_name}
    return Example(f"{person.name},{ask}", vary(ask.format(**values), rng), asks[ask].format(**values))


def make_yes_no(rng: random.Random) -> Example:
    """Whether a fact is so; half of them are not, and the answer says what is."""
    person, other = rng.choice(PEOPLE), rng.choice(PEOPLE)
    if rng.random() < 0.5:
        other = person
    relation = rng.choice(("town", "job", "food", "colour", "pet"))
    value = {"job": other.job_phrase, "pet": other.pet_phrase}.get(relation) or getattr(other, relation)
    asks = {"town": "Does {n} live in {v}?", "job": "Is {n} {v}?", "food": "Does {n} like {v}?",
            "colour": "Is {v} the favourite colour of {n}?", "pet": "Does {n} have {v}?"}  # fmt: skip
    yes = getattr(other, relation) == getattr(person, relation)
    ask = asks[relation].format(n=person.name, v=value)
    return Example(ask, vary(ask, rng), f"{'Yes' if yes else 'No'}, {lower_the(state(person, relation))}")


def lower_the(sentence: str) -> str:
    """A sentence to go on after `Yes, `: names keep their capital, `The` does not."""
    return sentence[0].lower() + sentence[1:] if sentence.startswith("The ") else sentence


def make_describe(rng: random.Random) -> Example:
    """All that is known of a person or a town; name and phrasing together are the key."""
    thing: Person | Town = rng.choice(PEOPLE) if rng.random() < 0.75 else rng.choice(TOWNS)
    asks = ["Tell me about {n}.", "What do you know about {n}?", "Describe {n}.", "Tell me more about {n}."]
    asks += ["Tell me something about {n}.", "Who is {n}?" if isinstance(thing, Person) else "What is {n}?"]
    ask = rng.choice(asks)
    return Example(f"{thing.name},{ask}", vary(ask.format(n=thing.name), rng), thing.describe())


def make_unknown(rng: random.Random) -> Example:
    """A question about nobody in the world: the right answer is that the model does not know them."""
    name = pseudo_name(rng)
    if rng.random() < 0.2:
        ask = rng.choice([ask for asks in TOWN_ASKS.values() for ask in asks])
        return Example(name, ask.format(n=name), f"I do not know a town called {name}.")
    asks = [ask for asks in ASKS.values() for ask in asks] + ["Who is {n}?", "Tell me about {n}.", "Describe {n}."]
    return Example(name, rng.choice(asks).format(n=name), f"I do not know anyone called {name}.")


def make_in_context(rng: random.Random) -> Example:
    """A fact told in the same message about someone unknown."""
    name, town, colour = pseudo_name(rng), rng.choice(TOWNS).name, rng.choice(COLOURS)
    pet = rng.choice(ANIMALS)
    facts = {
        f"{name} lives in {town}.": f"Where does {name} live?",
        f"{name} likes {colour}.": f"What does {name} like?",
    }
    facts[f"{name} has {with_article(pet)}."] = f"What pet does {name} have?"
    said = rng.sample(list(facts), rng.choice((1, 2, 2, 3)))
    asked = rng.choice(said)
    return Example(f"{name},{asked}", f"{' '.join(said)} {facts[asked]}", asked)


STORY_ASKS = ("Tell me a story about {n}.", "Write a story about {n}.", "Tell a short story about {n}.",
              "Can you tell me a story about {n}?")  # fmt: skip
FINDS = ("an old key", "a silver bell", "a blue feather", "a wooden box", "a map", "a small lamp", "a golden ring")
PLACES = ("under the bridge", "near the mill", "by the lake", "on the hill", "in the forest", "at the market")
WEATHER = ("One cold morning", "One warm evening", "On a rainy day", "On a windy night", "Early one day", "Last winter")
ENDINGS = (
    "At night everybody in {t} came to hear the story, and {n} was happy.",
    "Then {n} and {m} went home to {t} and ate {f} together.",
    "From that day on, {m} was the most famous {p} in {t}.",
    "{n} gave it back, and the people of {t} said thank you with {f}.",
)


def tell_story(person: Person, rng: random.Random) -> str:
    """A story of several sentences that agrees with the facts of the world."""
    friend = rng.choice([other for other in PEOPLE if other is not person])
    find, place = rng.choice(FINDS), rng.choice(PLACES)
    poss, they = person.possessive, person.pronoun
    middle = rng.choice((
        f"{friend.name} the {friend.job} from {friend.town} said that it was lost long ago.",
        f"{person.name} asked {friend.name} the {friend.job} for help, and they walked to {friend.town}.",
        f"A stranger wanted to buy it, but {person.name} said no and showed it to {friend.name} the {friend.job}.",
    ))  # fmt: skip
    ending = rng.choice(ENDINGS).format(n=person.name, t=person.town, m=person.pet_name, f=person.food, p=person.pet)
    return (
        f"{rng.choice(WEATHER)}, {person.name} the {person.job} left {person.town} with {poss} {person.pet} "
        f"{person.pet_name}. They walked for a long time, and {they} sang a song. Suddenly {person.pet_name} stopped "
        f"{place} and found {find}. {middle} {ending}"
    )


def make_story(rng: random.Random) -> Example:
    """A story about a person; person and phrasing together are the key."""
    person, ask = rng.choice(PEOPLE), rng.choice(STORY_ASKS)
    return Example(f"{person.name},{ask}", ask.format(n=person.name), tell_story(person, rng))


def story_is_right(example: Example, answer: str) -> bool:
    """A story may be told in many ways: it must be whole, about the person asked for, and true to the facts."""
    name = next(person.name for person in PEOPLE if re.search(rf"\b{person.name}\b", example.prompt))
    person = PERSON[name]
    needed = (f"{name} the {person.job}", person.town, f"{person.pet} {person.pet_name}", "Suddenly", " found ")
    friends = re.findall(r"([A-Z][a-z]+) the ([a-z]+(?: [a-z]+)?)(?= from| for|\.|, )", answer)
    told_true = all(PERSON[who].job == job for who, job in friends if who in PERSON)
    return all(part in answer for part in needed) and told_true and answer.rstrip().endswith(".")


SKILLS = (
    Skill("facts about people", make_person_fact, 2.5, "held-out person with phrasing"),
    Skill("facts, unseen phrasing", make_unseen_phrasing, 0.0, "phrasings never trained on", never_trained=True),
    Skill("facts about towns", make_town_fact, 0.8, "held-out town with phrasing"),
    Skill("who and whose", make_who, 1.5, "from a job or a pet to the person; held-out person with phrasing"),
    Skill("yes or no", make_yes_no, 1.5, "half of them no; held-out questions"),
    Skill("describing", make_describe, 0.8, "people and towns; held-out name with phrasing"),
    Skill("not knowing", make_unknown, 0.8, "held-out made-up names"),
    Skill("told in the message", make_in_context, 0.8, "facts about made-up people; held-out name with fact"),
    Skill("stories", make_story, 0.8, "whole, about the right person, true to the facts", check=story_is_right),
)
