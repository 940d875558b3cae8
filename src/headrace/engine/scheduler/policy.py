"""What distinguishes one scheduler from another: the order of the running requests, and who may start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from headrace.engine.request import Request
from headrace.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CacheView:
    """The cache as an admission decision sees it, in blocks of the pool that is shortest.

    Attributes:
        num_blocks: of the pool.
        num_free: that could be allocated now.
        num_committed: of the free ones, those that the running requests are expected to take.
        num_needed: that the new request takes: its prompt, and the output that is expected of it.
        num_running: requests that run already.
    """

    num_blocks: int
    num_free: int
    num_committed: int
    num_needed: int
    num_running: int


class Policy(Protocol):
    """A scheduling policy; both methods are pure functions."""

    def order(self, running: Sequence[Request]) -> Sequence[Request]:
        """The running requests (given in order of arrival) in the order in which they get the token budget."""
        ...

    def admits(self, cache: CacheView) -> bool:
        """Whether a waiting request may start."""
        ...


_FACTORIES: dict[str, str | Callable[[float], Policy]] = {
    "fifo": "headrace.engine.scheduler.fifo:Fifo",
    "prefill_first": "headrace.engine.scheduler.prefill_first:PrefillFirst",
}


def register_policy(name: str, factory: Callable[[float], Policy]) -> None:
    """Make an own policy known by name; the factory is called with the safety margin (0..1)."""
    _FACTORIES[name] = factory


def get_policy(name: str, safety_margin: float) -> Policy:
    """The policy of that name. Raises ConfigError that lists the names."""
    factory = _FACTORIES.get(name)
    if factory is None:
        raise ConfigError(f"scheduler={name!r} is not one of {', '.join(sorted(_FACTORIES))}")
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        policy: Policy = getattr(import_module(module), attribute)(safety_margin)
        return policy
    return factory(safety_margin)
