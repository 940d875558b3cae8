"""The events of a stream on their way through: whole ones go on, and what the replica says to the gateway is read.

A headrace replica that was asked to puts a comment before an event, which no client of the API sees::

    : headrace 0:17,4 1:9 0=stop        token ids of choice 0 and 1 since the last comment; choice 0 has ended
    : headrace usage                    the next event is the usage of the whole answer
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COMMENT = re.compile(rb"^: headrace ([^\r\n]*)\r?\n", re.MULTILINE)
_ENDS = (b"data: [DONE]", b"data:[DONE]", b"event: message_stop", b"event: response.completed")
_MORE_ENDS = (b"event: response.incomplete", b"event: response.failed")
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
        told_usage: the usage event was passed on. failed: the replica reported an error in the stream; the event that
            said so is in `error` and was not passed on.
    """

    def __init__(self, passes_comments: bool) -> None:
        """Nothing came yet."""
        self.choices: dict[int, ChoiceSoFar] = {}
        self.ended = False
        self.told_usage = False
        self.error = b""
        self.last_event = b""
        self.num_events = 0
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
        data = self._rest + data if self._rest else data
        end = data.rfind(b"\n\n")
        end = end + 2 if end >= 0 else 0
        if b"\r\n\r\n" in data[end:]:
            end = data.rfind(b"\r\n\r\n") + 4
        self._rest = data[end:]
        events = data[:end]
        if not events:
            return b""
        if b": headrace " in events:
            for comment in _COMMENT.findall(events):
                self._read(comment)
            if not self._passes_comments:
                events = _COMMENT.sub(b"", events)
        if any(mark in events for mark in _ERRORS):
            events = self._cut_error(events)
        self.num_events += events.count(b"data:")
        if not self.ended and any(mark in events for mark in (*_ENDS, *_MORE_ENDS)):
            self.ended = True
        if b'"usage"' in events:
            self.last_event = events
        return events

    def _cut_error(self, events: bytes) -> bytes:
        """The events before an error event; that one is kept back: the answer may go on elsewhere."""
        for mark in _ERRORS:
            place = events.find(mark)
            if place == 0 or (place > 0 and events[place - 1] == 0x0A):
                self.error = events[place:]
                return events[:place]
        return events

    def _read(self, comment: bytes) -> None:
        for item in comment.split():
            if item == b"usage":
                self.told_usage = True
                continue
            index, equals, reason = item.partition(b"=")
            if equals:
                self._choice(index).finish_reason = reason.decode()
                continue
            index, _, ids = item.partition(b":")
            self._choice(index).token_ids += map(int, ids.split(b","))

    def _choice(self, index: bytes) -> ChoiceSoFar:
        return self.choices.setdefault(int(index), ChoiceSoFar())
