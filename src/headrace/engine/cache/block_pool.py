"""The blocks of one cache group: who holds them, and which of the free ones still hold a reusable prefix.

::

                allocate()                       release() to zero holders
    blank ─────────────────► used ─────────────────────────────────────► blank      (content is nobody's)
      ▲                       ▲ │                                          or
      │ evict (LRU)           │ └──────────────────────────────────────► cached     (content is in the prefix tree)
      └────────── cached ─────┘ hold(): a prefix hit

blank + cached + used = total, always (law 10).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable


class BlockPool:
    """Block ids 0 … num_blocks - 1 of one group, counted by the tables that hold them.

    Args:
        num_blocks: how many there are.
        on_evict: told of a cached block just before its content is given up.

    Attributes:
        num_evictions: cached blocks given up so far.
    """

    def __init__(self, num_blocks: int, on_evict: Callable[[int], None]) -> None:
        """All blocks start blank."""
        self.num_blocks = num_blocks
        self.num_evictions = 0
        self._on_evict = on_evict
        self._holders = [0] * num_blocks
        # A stack: the block that was freed last is written next, while it is warm in the processor's cache; for
        # a sliding window this makes a request reuse its own blocks in turn, like a ring.
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could give: blank and cached."""
        return len(self._blank) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody holds and whose content can be reused."""
        return len(self._cached)

    @property
    def num_used(self) -> int:
        """Blocks that at least one table holds."""
        return self.num_blocks - self.num_available

    def holders(self, block: int) -> int:
        """Number of tables that hold `block`."""
        return self._holders[block]

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks for one holder, blank ones first, then the least recently used cached ones.

        The caller has checked `num_available`; ValueError otherwise, with nothing taken.
        """
        if count > self.num_available:
            raise ValueError(f"{count} blocks asked for, {self.num_available} of {self.num_blocks} available")
        blocks = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _ = self._cached.popitem(last=False)
                self.num_evictions += 1
                self._on_evict(block)
            self._holders[block] = 1
            blocks.append(block)
        return blocks

    def hold(self, block: int) -> None:
        """Add a holder to a used or cached block (a prefix hit)."""
        if self._holders[block] == 0:
            del self._cached[block]  # KeyError: the block is blank, and holding it would be a bug
        self._holders[block] += 1

    def release(self, blocks: Iterable[int], is_cached: Callable[[int], bool]) -> list[int]:
        """Drop one holder from each block; return those that became blank.

        A block without a holder stays reusable when `is_cached` says so. Earlier blocks of the iterable are evicted
        first, so a table is released from its end: the tail of a prefix goes before its head.
        """
        blank = []
        for block in blocks:
            if self._holders[block] <= 0:
                raise ValueError(f"block {block} is released, but nobody holds it")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if is_cached(block):
                    self._cached[block] = None
                else:
                    self._blank.append(block)
                    blank.append(block)
        return blank

    def check(self, held: dict[int, int], reusable: set[int]) -> list[str]:
        """Compare with the tables' own count of holders and the tree's blocks; return what is wrong."""
        problems = []
        blank, cached = set(self._blank), set(self._cached)
        if len(blank) != len(self._blank):
            problems.append("a block is twice in the blank stack")
        if blank & cached:
            problems.append(f"blocks {sorted(blank & cached)} are blank and cached at once")
        for block, count in enumerate(self._holders):
            if count != held.get(block, 0):
                problems.append(f"block {block} counts {count} holders, {held.get(block, 0)} tables hold it")
            if (count == 0) != (block in blank or block in cached):
                problems.append(f"block {block} with {count} holders is in the wrong set")
        if cached - reusable:
            problems.append(f"cached blocks {sorted(cached - reusable)} are not in the prefix tree")
        if blank & reusable:
            problems.append(f"blank blocks {sorted(blank & reusable)} are in the prefix tree")
        return problems
