"""A step while it is made."""

from __future__ import annotations

from headrace.engine.request import Request


class Draft:
    """Tokens per request, and what is left of the budget."""

    __slots__ = ("budget", "num_tokens")

    def __init__(self, budget: int) -> None:
        """Nothing is planned yet."""
        self.budget = budget
        self.num_tokens: dict[Request, int] = {}

    def take(self, request: Request, num_tokens: int) -> None:
        """Plan so many tokens of a request."""
        if num_tokens > 0:
            self.num_tokens[request] = num_tokens
            self.budget -= num_tokens

    def give_back(self, request: Request) -> None:
        """Plan nothing of a request after all."""
        self.budget += self.num_tokens.pop(request, 0)
