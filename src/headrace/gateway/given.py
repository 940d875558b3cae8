"""What a client was given of a stream: all that another replica needs to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.gateway import answers, forwarding
from headrace.gateway.events import EventStream


class Given(msgspec.Struct, eq=False):
    """Of one answer, whichever replicas it came from.

    Attributes:
        events: that came so far. seed: that the first replica drew with. can_continue: it told its token ids.
        first_event: `id` and `created` of the answer. num_continuations: how often another replica went on with it.
    """

    events: EventStream
    seed: bytes
    can_continue: bool
    first_event: Mapping[str, Any]
    num_continuations: int = 0

    @classmethod
    def first(cls, events: EventStream, fields: Mapping[bytes, bytes], data: bytes) -> Given:
        """By the first replica: the fields of its answer's head, and the first events."""
        can_continue = fields.get(forwarding.TOKEN_IDS) == b"1"
        first_event = answers.identity(data) if can_continue else {}
        return cls(events, fields.get(forwarding.SEED, b""), can_continue, first_event)

    @property
    def lacks_only_the_end(self) -> bool:
        """Whether every choice has ended and the usage was told."""
        choices = self.events.choices
        return self.events.told_usage and all(so_far.finish_reason for so_far in choices.values())

    def continuation(self, body: bytes) -> bytes:
        """The body of a request for the rest; `body`: as the client sent it. What comes next is of another source."""
        self.events.new_source()
        return forwarding.continuation(body, self.seed, self.first_event, self.events.choices)
