"""Which replica was sent which prefix: what its cache holds, as far as the gateway can know.

A prefix is its chained block hash, so one dictionary from hash to a bit per replica answers for all replicas at once;
64 bits make a false match one in 10^13 at a million entries, and a false match costs a prefill, not a wrong answer.

Each replica's part is bounded by the tokens that its cache can hold. Old entries go by generations: a replica's hashes
are in a young and an old set; what is used is in the young one; when that is half of the bound, the old set is dropped
and the young one is the old. That is LRU to within a factor of two in age, at the memory of plain sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headrace.gateway.blocks import block_tokens


class _Generations:
    """Attributes: capacity: tokens in both. num_young_tokens: in `young`."""

    __slots__ = ("capacity", "num_young_tokens", "old", "young")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.begin()
        self.old: set[int] = set()

    def begin(self) -> None:
        self.young: set[int] = set()
        self.num_young_tokens = 0


class PrefixIndex:
    """Hashes to replicas. Replicas are small whole numbers, used again when a replica is gone.

    Args:
        default_capacity: tokens per replica, until it has reported the size of its cache.
        max_entries: hashes in all, which the replicas share evenly.

    Attributes: num_changes: counts what is recorded and forgotten, so that others see that there is something new.
    """

    def __init__(self, default_capacity: int = 2_000_000, max_entries: int = 262_144) -> None:
        """Nothing known."""
        self.num_changes = 0
        self._masks: dict[int, int] = {}
        self._generations: dict[int, _Generations] = {}
        self._default = default_capacity
        self._max_entries = max_entries

    def __len__(self) -> int:
        """Hashes that some replica holds."""
        return len(self._masks)

    def add_replica(self, replica: int) -> None:
        """Begin with an empty cache."""
        self._generations[replica] = _Generations(self._default)

    def remove_replica(self, replica: int) -> None:
        """Forget a replica; also one whose cache is gone, before it is added again."""
        self.num_changes += 1
        generations = self._generations.pop(replica, None)
        if generations is not None:
            self._drop(replica, generations.young | generations.old)

    def set_capacity(self, replica: int, num_tokens: int) -> None:
        """Bound a replica's part by what it reported, if that is less than the default."""
        self._generations[replica].capacity = min(num_tokens, self._default)

    def record(self, hashes: Sequence[int], replica: int) -> None:
        """The replica was sent this prefix."""
        self.num_changes += 1
        generations = self._generations[replica]
        young, bit, masks = generations.young, 1 << replica, self._masks
        if young.issuperset(hashes):
            return  # the usual, and a third of the time of a loop
        num_tokens = generations.num_young_tokens
        for block_hash in hashes:
            if block_hash not in young:
                young.add(block_hash)
                num_tokens += block_tokens(block_hash)
                masks[block_hash] = masks.get(block_hash, 0) | bit
        generations.num_young_tokens = num_tokens
        most = self._max_entries // len(self._generations)
        if 2 * num_tokens >= generations.capacity or 2 * len(young) >= most:
            self._drop(replica, generations.old - young)
            generations.old = young
            generations.begin()

    def _drop(self, replica: int, hashes: set[int]) -> None:
        keep = ~(1 << replica)
        for block_hash in hashes:
            if left := self._masks.get(block_hash, 0) & keep:
                self._masks[block_hash] = left
            else:
                self._masks.pop(block_hash, None)

    def depths(self, hashes: Sequence[int]) -> dict[int, int]:
        """How many leading blocks each replica holds; replicas without the first are left out."""
        found: dict[int, int] = {}
        masks, depth, alive = self._masks, 0, -1
        for block_hash in hashes:
            holders = masks.get(block_hash, 0) & alive
            if holders != alive:
                if depth:
                    for replica in _bits(alive & ~holders):
                        found[replica] = depth
                if not holders:
                    return found
                alive = holders
            depth += 1
        if depth:
            for replica in _bits(alive):
                found[replica] = depth
        return found

    # ---------------------------------------------------------------- across a restart

    def hashes(self, replica: int) -> Iterator[int]:
        """What a replica holds, the oldest first."""
        generations = self._generations[replica]
        yield from generations.old - generations.young
        yield from generations.young


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
