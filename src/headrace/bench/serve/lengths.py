"""Lengths of prompts and outputs, in tokens, drawn from a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

from headrace.errors import ConfigError

_FORMS = "128 (always), 100-1024 (uniform), normal:512:128 or lognormal:512:0.6 (median, sigma)"


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of whole numbers of at least 1.

    Attributes: kind: "uniform" takes both ends in; "normal" has mean and deviation; "lognormal" median and sigma.
    """

    kind: Literal["uniform", "normal", "lognormal"]
    first: float
    second: float

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """From the command line's form. Raises ConfigError that lists the forms."""
        try:
            kind, *numbers = text.split(":")
            if kind in ("normal", "lognormal"):
                first, second = map(float, numbers)
                if first >= 1 and second >= 0:
                    return cls("normal" if kind == "normal" else "lognormal", first, second)
            elif not numbers:
                low, _, high = text.partition("-")
                least, most = int(low), int(high or low)
                if 1 <= least <= most:
                    return cls("uniform", least, most)
        except ValueError:
            pass
        raise ConfigError(f"{text!r} is not a distribution of lengths: {_FORMS}")

    def draw(self, random: Random) -> int:
        """One length."""
        if self.kind == "uniform":
            return random.randint(int(self.first), int(self.second))
        if self.kind == "normal":
            return max(1, round(random.gauss(self.first, self.second)))
        return max(1, round(self.first * math.exp(random.gauss(0.0, self.second))))
