"""What a client's connection tells those who answer its requests."""

from __future__ import annotations

from typing import Protocol


class Job(Protocol):
    """What answers a request."""

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        ...

    def pause(self) -> None:
        """The client reads more slowly than the answer comes."""
        ...

    def resume(self) -> None:
        """It has caught up."""
        ...
