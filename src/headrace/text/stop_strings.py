"""Finds stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopStringMatcher:
    """Gives text on until one of the stop strings is complete, and nothing of that string.

    The match is the one that is complete first, however the text was cut into pieces; of several that end at the same
    character it is the longest. What is held back is exactly the longest suffix that may still become a stop string.

    Algorithm: the automaton of Aho and Corasick (1975), https://doi.org/10.1145/360825.360855. A state is a prefix of
    a stop string, namely the longest one that the text ends with, so its length is how much to hold back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Build the automaton of stop strings, none of them empty."""
        self._next: list[dict[str, int]] = [{}]
        self._length = [0]
        self._match: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._fallback = self._link()
        self._state = 0
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take the next piece.

        Returns:
            The text that is safe to give on, and the stop string if one is complete. After a match nothing comes any
            more: the matcher has done its work.
        """
        text, start = self._held + text, len(self._held)
        for place in range(start, len(text)):
            self._state = self._step(self._state, text[place])
            stop = self._match[self._state]
            if stop is not None:
                self._held = ""
                return text[: place + 1 - len(stop)], stop
        safe = len(text) - self._length[self._state]
        self._held = text[safe:]
        return text[:safe], None

    def flush(self) -> str:
        """What was held back, now that no text follows."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def _insert(self, stop: str) -> None:
        if not stop:
            raise ValueError("a stop string must not be empty")
        state = 0
        for character in stop:
            child = self._next[state].get(character)
            if child is None:
                child = self._next[state][character] = len(self._next)
                self._next.append({})
                self._length.append(self._length[state] + 1)
                self._match.append(None)
            state = child
        self._match[state] = stop

    def _link(self) -> list[int]:
        """For each state, the longest shorter state that is its suffix; inherits the stop strings that end there."""
        fallback = [0] * len(self._next)
        self._fallback = fallback
        todo = deque(self._next[0].values())
        while todo:
            state = todo.popleft()
            for character, child in self._next[state].items():
                fallback[child] = self._step(fallback[state], character)
                todo.append(child)
            if self._match[state] is None:
                self._match[state] = self._match[fallback[state]]
        return fallback
