"""What the parent and its processes tell each other, in msgpack."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping

import msgspec

from headrace.gateway.gateway import OwnAnswer
from headrace.gateway.http.messages import Request, fields_of
from headrace.gateway.replica import Endpoint
from headrace.gateway.tally import Tally


class ReplicaReport(msgspec.Struct, array_like=True):
    """How a process sees a replica. Attributes: num_tokens: under way, uncached."""

    num_in_flight: int
    num_tokens: int
    condition: str


class State(msgspec.Struct, array_like=True, tag=1):
    """To a process: all replicas that there are. Attributes: draining: names of those that get nothing new."""

    number: int
    endpoints: list[Endpoint]
    draining: list[str]


class Report(msgspec.Struct, array_like=True, tag=2):
    """From a process, now and then and after each State. Attributes: number: of the newest state that it knows."""

    number: int
    replicas: dict[str, ReplicaReport]
    tally: Tally


class Sent(msgspec.Struct, array_like=True, tag=3):
    """A prefix was sent to a replica. Attributes: hashes: of its blocks, 64 bits each, in this machine's order."""

    replica: str
    hashes: bytes


class Asked(msgspec.Struct, array_like=True, tag=4):
    """A request for a page that the other end answers."""

    number: int
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    client: str

    @classmethod
    def of(cls, number: int, request: Request) -> Asked:
        """To be sent."""
        return cls(number, request.method, request.target, list(request.headers), request.body, request.client)

    @property
    def request(self) -> Request:
        """As it came in."""
        return Request(self.method, self.target, self.headers, fields_of(self.headers), self.body, self.client)


class Answered(msgspec.Struct, array_like=True, tag=5):
    """The answer to the Asked of that number."""

    number: int
    status: int
    body: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, number: int, answer: OwnAnswer) -> Answered:
        """To be sent."""
        return cls(number, *answer)

    @property
    def answer(self) -> OwnAnswer:
        """As a page answers."""
        return OwnAnswer(self.status, self.body, self.content_type, self.headers)


Message = State | Report | Sent | Asked | Answered

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode


def sent(replica: str, hashes: Iterable[int]) -> Sent:
    """To be told to the others."""
    return Sent(replica, array("Q", hashes).tobytes())


def hashes_of(message: Sent) -> array[int]:
    """The hashes."""
    return array("Q", message.hashes)


def summed(reports: Iterable[Mapping[str, ReplicaReport]]) -> dict[str, tuple[int, int]]:
    """Requests and uncached tokens under way by replica, over several processes."""
    total: dict[str, tuple[int, int]] = {}
    for report in reports:
        for name, seen in report.items():
            requests, tokens = total.get(name, (0, 0))
            total[name] = requests + seen.num_in_flight, tokens + seen.num_tokens
    return total
