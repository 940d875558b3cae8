"""What a gateway is told of a stream, in comments that no client of the interfaces sees.

::

    : headrace 0:17,4 1:9 0=stop *2     token ids of choice 0 and 1 since the last comment; choice 0 has ended;
    data: …                             the next 2 events belong together: the tokens are given out with all of them
    : headrace usage                    the next event is the usage of the whole answer

With the token ids another server can go on where this one stops (`headrace_continue`). A comment stands directly before
the event that it speaks of, as lines of one block, so none is passed on without the other.
"""

from __future__ import annotations

from collections.abc import Sequence


class Progress:
    """Notes what a stream has consumed, and says so before its events.

    Tokens without an event of their own (their text is held back) are told of with the next event of their choice, the
    last ones at the end: what was not told is generated again by the server that goes on.

    Args:
        num_choices: of the answer.
    """

    def __init__(self, num_choices: int) -> None:
        """Nothing consumed."""
        self._untold: list[list[int]] = [[] for _ in range(num_choices)]
        self._reasons: dict[int, str] = {}
        self._opening = b""

    def open(self, events: bytes) -> None:
        """Events that begin the stream: they go out together with the first tokens."""
        self._opening = events

    def took(self, index: int, token_ids: Sequence[int]) -> None:
        """Tokens of a choice were consumed."""
        self._untold[index] += token_ids

    def ended(self, index: int, reason: str) -> None:
        """A choice has ended; told with its next events."""
        self._reasons[index] = reason

    def forget(self) -> None:
        """What was consumed so far is known already."""
        self._reasons.clear()
        for untold in self._untold:
            untold.clear()

    def marked(self, index: int, events: bytes) -> bytes:
        """Events of one choice, all of which belong to what it consumed; none, and it is told of later."""
        return self._with_comment(self._of_choice(index), events) if events else b""

    def opened(self) -> bytes:
        """The events that begin the stream, where no others have taken them along; with all that was consumed."""
        return self._with_comment(self._of_all(), b"") if self._opening else b""

    def closed(self, events: bytes, *, has_usage: bool) -> bytes:
        """The last events of the stream. Args: has_usage: the usage is among them."""
        return self._with_comment([*self._of_all(), *([b"usage"] if has_usage else [])], events)

    def _of_choice(self, index: int) -> list[bytes]:
        items = []
        untold = self._untold[index]
        if untold:
            items.append(b"%d:%b" % (index, ",".join(map(str, untold)).encode()))
            untold.clear()
        if index in self._reasons:
            items.append(b"%d=%b" % (index, self._reasons.pop(index).encode()))
        return items

    def _of_all(self) -> list[bytes]:
        return [item for index in range(len(self._untold)) for item in self._of_choice(index)]

    def _with_comment(self, items: list[bytes], events: bytes) -> bytes:
        if self._opening:
            events, self._opening = self._opening + events, b""
        num_events = events.count(b"\n\n")  # JSON has no line breaks of its own
        if num_events > 1:
            items.append(b"*%d" % num_events)
        return b": headrace " + b" ".join(items) + b"\n" + events if items else events
