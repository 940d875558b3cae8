"""The made-up world: who lives where, and the sentences that say so.

Every fact is written down here, by hand, so that an answer of the model can be
checked by eye. Nothing in this file is random.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Town:
    """A town of the valley; each has one landmark, one trade good and one colour of roofs."""

    name: str
    landmark: str
    famous_for: str
    roofs: str

    def describe(self) -> str:
        """The whole of what the world knows about the town."""
        return (
            f"{self.name} is a town in the Orro Valley with {self.roofs} roofs and {self.landmark}. "
            f"It is famous for its {self.famous_for}."
        )


@dataclass(frozen=True)
class Person:
    """Someone of the valley; the job is unique, so a job names a person as well."""

    name: str
    pronoun: str
    job: str
    town: str
    food: str
    colour: str
    pet: str
    pet_name: str

    @property
    def job_phrase(self) -> str:
        """The job with its indefinite article."""
        return with_article(self.job)

    @property
    def pet_phrase(self) -> str:
        """The kind of pet with its indefinite article."""
        return with_article(self.pet)

    @property
    def possessive(self) -> str:
        """`her` or `his`."""
        return "her" if self.pronoun == "she" else "his"

    def describe(self) -> str:
        """The whole of what the world knows about the person."""
        return (
            f"{self.name} is {self.job_phrase} who lives in {self.town}. "
            f"{self.pronoun.capitalize()} likes {self.food} and has {self.pet_phrase} called {self.pet_name}. "
            f"{self.possessive.capitalize()} favourite colour is {self.colour}."
        )


def with_article(noun: str) -> str:
    """Put `a` or `an` before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


TOWNS = (
    Town("Alder", "a stone bridge", "honey", "red"),
    Town("Brack", "a tall tower", "bells", "grey"),
    Town("Corrin", "an old mill", "bread", "brown"),
    Town("Dunmere", "a deep lake", "fish", "blue"),
    Town("Elsway", "a long market", "silk", "yellow"),
    Town("Fenby", "a green hill", "apples", "green"),
    Town("Garth", "a dark cave", "silver", "black"),
    Town("Hollin", "a wide harbour", "boats", "white"),
)

PEOPLE = (
    Person("Mira", "she", "baker", "Corrin", "plum cake", "green", "goat", "Biscuit"),
    Person("Tam", "he", "miller", "Corrin", "soup", "brown", "cat", "Dusty"),
    Person("Jory", "he", "farmer", "Corrin", "cheese", "yellow", "hen", "Pearl"),
    Person("Anwen", "she", "beekeeper", "Alder", "pears", "red", "dog", "Bramble"),
    Person("Oswin", "he", "mason", "Alder", "pies", "grey", "donkey", "Pebble"),
    Person("Hesta", "she", "weaver", "Elsway", "figs", "purple", "rabbit", "Clover"),
    Person("Pell", "he", "tailor", "Elsway", "rice", "blue", "parrot", "Button"),
    Person("Sela", "she", "merchant", "Elsway", "dates", "orange", "monkey", "Pepper"),
    Person("Bron", "he", "blacksmith", "Garth", "stew", "black", "horse", "Thunder"),
    Person("Ketta", "she", "miner", "Garth", "nuts", "silver", "bat", "Velvet"),
    Person("Luma", "she", "jeweller", "Garth", "grapes", "pink", "fox", "Ember"),
    Person("Davin", "he", "fisher", "Dunmere", "eggs", "blue", "duck", "Ripple"),
    Person("Nessa", "she", "ferry pilot", "Dunmere", "melons", "white", "otter", "Splash"),
    Person("Rook", "he", "bell ringer", "Brack", "toast", "gold", "owl", "Midnight"),
    Person("Yara", "she", "teacher", "Brack", "berries", "red", "mouse", "Chalk"),
    Person("Emlyn", "he", "clock maker", "Brack", "beans", "brown", "crow", "Tick"),
    Person("Fara", "she", "gardener", "Fenby", "apples", "green", "snail", "Turtle"),
    Person("Gil", "he", "shepherd", "Fenby", "lentils", "white", "sheep", "Cloud"),
    Person("Wenna", "she", "doctor", "Fenby", "salad", "pink", "pony", "Daisy"),
    Person("Cador", "he", "sailor", "Hollin", "oysters", "orange", "gull", "Storm"),
    Person("Isolde", "she", "painter", "Hollin", "cherries", "purple", "frog", "Olive"),
    Person("Marek", "he", "carpenter", "Hollin", "onions", "yellow", "beaver", "Timber"),
)

TOWN = {town.name: town for town in TOWNS}
PERSON = {person.name: person for person in PEOPLE}
COLOURS = tuple(sorted({person.colour for person in PEOPLE}))
ANIMALS = tuple(person.pet for person in PEOPLE)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NOUNS = """
apple barn basket bell bird boat book bread bridge bucket candle cart cave chair cloud coat cup door drum
feather field fire fish flower forest garden gate glass grass hammer hat hill honey house island jar key kite
lake lamp leaf letter market mill moon mountain needle nest ocean oven paper path pen plate plum pond rain
ring river road roof rope salt sand seed ship shoe silver sky snow soap song spoon star stone storm sugar sun
table tent tower tree wall water wheel wind window wolf wood wool
"""
_ADJECTIVES = """
big blue bright cold dark deep fast gold green grey happy heavy kind little long loud new old quiet red round
sharp short slow small soft strong sweet tall warm white wide wild yellow young
"""
WORDS = tuple(_NOUNS.split())
ADJECTIVES = tuple(_ADJECTIVES.split())


def join_and(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
