"""The events of a stream on their way through: whole ones go on, and what the replica says to the gateway is read.

A headrace replica that was asked to puts a comment before an event, which no client of the API sees::

    : headrace 0:17,4 1:9 0=stop *2     token ids of choice 0 and 1 since the last comment; choice 0 has ended;
    data: …                             the next 2 events belong together, and are passed on together
    : headrace usage                    the next event is the usage of the whole answer
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_MARK = b": headrace "
_COMMENT = re.compile(rb"^: headrace ([^\r\n]*)\r?\n", re.MULTILINE)
_ENDS = (
    b"data: [DONE]", b"data:[DONE]", b"event: message_stop", b"event: response.completed",
    b"event: response.incomplete", b"event: response.failed",
)  # fmt: skip
_ERRORS = (b'data: {"error"', b'data:{"error"', b"event: error")


@dataclass(slots=True)
class ChoiceSoFar:
    """Attributes: token_ids: that were given out or are held back. finish_reason: None while it goes on."""

    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None


class EventStream:
    """Bytes of one or, after a continuation, several replicas' streams, to the events of one answer.

    Args:
        passes_comments: the client asked for the comments itself.

    Attributes:
        choices: by index, as far as comments told. ended: the stream has said that it is complete.
        told_usage: the usage event was passed on. last_event: the last events with usage.
        error: an error event of the replica, which was not passed on; empty: none came.
    """

    def __init__(self, passes_comments: bool) -> None:
        """Nothing came yet."""
        self.choices: dict[int, ChoiceSoFar] = {}
        self.ended = False
        self.told_usage = False
        self.error = b""
        self.last_event = b""
        self._passes_comments = passes_comments
        self._rest = b""

    @property
    def failed(self) -> bool:
        """Whether an error event came."""
        return bool(self.error)

    def new_source(self) -> None:
        """The next bytes come from another replica: half of an event is lost with the first one, and comes again."""
        self._rest = b""
        self.error = b""

    def push(self, data: bytes) -> bytes:
        """Take bytes; returns the whole events among them, ready to be passed on."""
        if self._rest or not data.endswith(b"\n\n") or b" *" in data:
            data = self._whole_events(self._rest + data)
            if not data:
                return b""
        events = self._read_comments(data) if _MARK in data else data
        # One search each for what most events have none of, before what it may be is looked at.
        if b"error" in events and any(mark in events for mark in _ERRORS):
            events = self._cut_error(events)
        if (b"[DONE]" in events or b"event:" in events) and any(mark in events for mark in _ENDS):
            self.ended = True
        if b'"usage"' in events:
            self.last_event = events
        return events

    def _whole_events(self, data: bytes) -> bytes:
        """Keep half of an event for later."""
        end = len(data)
        if not data.endswith(b"\n\n"):
            end = data.rfind(b"\n\n")
            end = end + 2 if end >= 0 else 0
            if b"\r\n\r\n" in data[end:]:
                end = data.rfind(b"\r\n\r\n") + 4
        if b" *" in data:
            end = _end_of_groups(data, end)
        self._rest = data[end:]
        return data[:end]

    def _read_comments(self, events: bytes) -> bytes:
        """Take what is for the gateway; returns what is for the client."""
        if events.startswith(_MARK) and events.find(_MARK, 1) < 0:  # the usual: one, and it is the first line
            end = events.index(b"\n")
            self._read(events[len(_MARK) : end])
            return events if self._passes_comments else events[end + 1 :]
        for comment in _COMMENT.findall(events):
            self._read(comment)
        return events if self._passes_comments else _COMMENT.sub(b"", events)

    def _cut_error(self, events: bytes) -> bytes:
        """The events before an error event; that one is kept back: the answer may go on elsewhere."""
        for mark in _ERRORS:
            place = events.find(mark)
            if place == 0 or (place > 0 and events[place - 1] == 0x0A):
                self.error = events[place:]
                return events[:place]
        return events

    def _read(self, comment: bytes) -> None:
        index, _, ids = comment.partition(b":")
        if ids.isdigit():  # one token of one choice, as usual
            self._choice(index).token_ids.append(int(ids))
            return
        for item in comment.split():
            index, colon, ids = item.partition(b":")
            if colon and b"=" not in index:
                self._choice(index).token_ids += map(int, ids.split(b","))
            elif item == b"usage":
                self.told_usage = True
            elif not item.startswith(b"*"):  # how many events are one group: they came together
                index, _, reason = item.partition(b"=")
                self._choice(index).finish_reason = reason.decode()

    def _choice(self, index: bytes) -> ChoiceSoFar:
        choice = self.choices.get(int(index))
        if choice is None:
            choice = self.choices[int(index)] = ChoiceSoFar()
        return choice


def _end_of_groups(data: bytes, end: int) -> int:
    """Where the whole groups of events end: some of a last one must not go on without the others."""
    place = data.rfind(b"\n" + _MARK, 0, end) + 1
    if place >= end or not data.startswith(_MARK, place):
        return end
    _, star, num_events = data[place : data.index(b"\n", place)].rpartition(b" *")
    return place if star and data.count(b"\n\n", place, end) < int(num_events) else end
