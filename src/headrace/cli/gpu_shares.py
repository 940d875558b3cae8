"""Which GPU a replica of `headrace up` gets: each its own, as long as there are enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

_ANY_GPU = ("auto", "cuda")


class GpuShares:
    """Gives out GPUs, the least used first.

    Args:
        gpus: that there are, in order. device: the engine's setting; where it names a device, replicas get no own one.
    """

    def __init__(self, gpus: Sequence[str], device: str) -> None:
        """None is given out."""
        self._gpus = tuple(gpus) if device in _ANY_GPU else ()
        self._given: dict[str, str] = {}

    def take(self, name: str, living: Collection[str]) -> str | None:
        """The GPU of the replica `name`, which keeps it when it is started again; None: there are none to share.

        Args:
            living: names of the replicas that there are; what others were given is free.
        """
        if not self._gpus:
            return None
        used = Counter(gpu for other, gpu in self._given.items() if other in living and other != name)
        known = self._given.get(name)
        if known is None or used[known] > min(used[gpu] for gpu in self._gpus):
            known = min(self._gpus, key=used.__getitem__)
        self._given[name] = known
        return known
