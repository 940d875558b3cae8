"""The scheduler's side of the KV cache: block tables that grow, share, shrink and are given back.

::

    tokens      0 …… 31 │ 32 …… 63 │ 64 …… 95 │ 96 …           (block_size 32)
    full table     7         3          12       9             every block is kept
    window of 40  -1        -1           4       1             blocks out of every window to come are given back
                  └ cached and shared when full and computed ┘

One table per cache group and request, one pool of blocks per group, one prefix tree over all groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from headrace.engine.cache.block_pool import BlockPool
from headrace.engine.cache.groups import CacheGroup, describe
from headrace.engine.cache.prefix_tree import NO_BLOCK, PrefixNode, PrefixTree


@dataclass(slots=True, eq=False)
class RequestBlocks:
    """What one running request holds. Only `KVCache` changes it.

    Attributes:
        tables: one per group; entry i holds positions [i·S, (i+1)·S), NO_BLOCK once given back.
        num_dropped: per group, leading entries that were given back.
        path: prefix nodes of its leading full blocks, of the prompt's and of what was computed since.
        num_published: leading entries of `path` whose blocks were offered for reuse.
        num_promised: entries of `path` (from num_published) on which the request counts as a writer.
        salt: prefixes are shared only between requests of the same salt.
        is_distrusted: its KV may hold NaN (see `KVCache.distrust`).
    """

    tables: tuple[list[int], ...]
    num_dropped: list[int]
    salt: str | None
    path: list[PrefixNode] = field(default_factory=list)
    num_published: int = 0
    num_promised: int = 0
    is_distrusted: bool = False


@dataclass(frozen=True, slots=True)
class PrefixHit:
    """What the cache has of a prompt.

    Attributes:
        nodes: of the blocks that can be reused.
        awaited: whether a running request is going to compute the block that comes next.
    """

    nodes: tuple[PrefixNode, ...] = ()
    awaited: bool = False


class KVCache:
    """Block tables over the pools of all groups.

    Args:
        groups: the model's cache groups. num_blocks: pool size of each.
        block_size: tokens per block.
        enable_prefix_caching: whether full blocks are shared and kept for reuse.
    """

    def __init__(
        self, groups: Sequence[CacheGroup], num_blocks: Sequence[int], block_size: int, enable_prefix_caching: bool
    ) -> None:
        """Start with every block blank."""
        self.groups = tuple(groups)
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self.tree = PrefixTree(len(groups), block_size)
        self.pools = tuple(BlockPool(n, on_evict=partial(self.tree.withdraw, g)) for g, n in enumerate(num_blocks))
        self._bounded = tuple(g for g, group in enumerate(groups) if group.bounded)
        self._live: set[RequestBlocks] = set()
        self._to_zero: list[list[int]] = [[] for _ in groups]

    def match(self, tokens: Sequence[int], salt: str | None) -> PrefixHit:
        """The longest reusable prefix; at least one token is always left to compute."""
        if not self.enable_prefix_caching:
            return PrefixHit()
        limit = (len(tokens) - 1) // self.block_size
        path = list(self.tree.path(tokens, limit, salt))
        length = self._longest_usable(path)
        awaited = length < len(path) and path[length].num_writers > 0
        return PrefixHit(tuple(path[:length]), awaited)

    def _longest_usable(self, path: Sequence[PrefixNode]) -> int:
        """Most leading nodes after which a request can go on: every group has the blocks that its next query sees."""
        length = len(path)
        while length > 0:
            gaps = [self._last_gap(path, g, length) for g in range(len(self.groups))]
            if all(gap is None for gap in gaps):
                return length
            # A gap that is in sight from `length` is in sight from every shorter length beyond it.
            length = min(gap for gap in gaps if gap is not None)
        return 0

    def _last_gap(self, path: Sequence[PrefixNode], g: int, length: int) -> int | None:
        """Last node without a block of group g that a query right after `length` nodes sees."""
        first = self.groups[g].first_visible(length * self.block_size) // self.block_size
        return next((i for i in range(length - 1, first - 1, -1) if path[i].blocks[g] == NO_BLOCK), None)

    def begin(self, tokens: Sequence[int], hit: PrefixHit, salt: str | None) -> RequestBlocks:
        """Make the tables of a request that starts after `hit`, and promise the rest of its full prompt blocks."""
        length = len(hit.nodes)
        tables, dropped = [], []
        for g, group in enumerate(self.groups):
            first = group.first_visible(length * self.block_size) // self.block_size
            table = [NO_BLOCK] * first + [node.blocks[g] for node in hit.nodes[first:]]
            for block in table[first:]:
                self.pools[g].hold(block)
            tables.append(table)
            dropped.append(first)
        blocks = RequestBlocks(tuple(tables), dropped, salt, num_published=length)
        self._live.add(blocks)
        for node in hit.nodes:
            self._step_on(blocks, node)
        if self.enable_prefix_caching:
            self._promise(blocks, tokens)
        return blocks

    def _promise(self, blocks: RequestBlocks, tokens: Sequence[int]) -> None:
        size = self.block_size
        for start in range(len(blocks.path) * size, len(tokens) - size + 1, size):
            parent = blocks.path[-1] if blocks.path else None
            node = self._step_on(blocks, self.tree.extend(parent, tokens[start : start + size], blocks.salt))
            node.num_writers += 1
            blocks.num_promised += 1

    @staticmethod
    def _step_on(blocks: RequestBlocks, node: PrefixNode) -> PrefixNode:
        node.num_users += 1
        blocks.path.append(node)
        return node

    def room(self, blocks: RequestBlocks) -> int:
        """Largest number of positions that `grow` could cover now."""
        pairs = zip(blocks.tables, self.pools, strict=True)
        return min(len(table) + pool.num_available for table, pool in pairs) * self.block_size

    def grow(self, blocks: RequestBlocks, num_tokens: int) -> bool:
        """Extend every table to cover `num_tokens` positions; False, with nothing changed, when blocks are short."""
        need = -(-num_tokens // self.block_size)
        for table in blocks.tables:
            if len(table) < need:
                break
        else:
            return True  # nearly every decode of nearly every step ends here
        missing = [need - len(table) for table in blocks.tables]
        if any(m > pool.num_available for m, pool in zip(missing, self.pools, strict=True)):
            return False
        for table, pool, count in zip(blocks.tables, self.pools, missing, strict=True):
            if count > 0:
                table.extend(pool.allocate(count))
        return True

    def advance(self, blocks: RequestBlocks, tokens: Sequence[int], num_computed: int) -> None:
        """After a step: offer the blocks that are now full and computed, give back those out of every window."""
        num_full = num_computed // self.block_size
        if self.enable_prefix_caching and num_full > blocks.num_published:
            self._publish(blocks, tokens, num_full)
        for g in self._bounded:
            self._drop(blocks, g, self.groups[g].first_visible(num_computed) // self.block_size)

    def _publish(self, blocks: RequestBlocks, tokens: Sequence[int], num_full: int) -> None:
        size = self.block_size
        for i in range(blocks.num_published, num_full):
            if i == len(blocks.path):
                parent = blocks.path[-1] if blocks.path else None
                self._step_on(blocks, self.tree.extend(parent, tokens[i * size : (i + 1) * size], blocks.salt))
            node = blocks.path[i]
            if blocks.num_promised:
                node.num_writers -= 1
                blocks.num_promised -= 1
            for g, table in enumerate(blocks.tables):
                if table[i] != NO_BLOCK:
                    self.tree.publish(node, g, table[i])
            blocks.num_published = i + 1

    def _drop(self, blocks: RequestBlocks, g: int, first: int) -> None:
        table, start = blocks.tables[g], blocks.num_dropped[g]
        gone = [block for block in table[start:first] if block != NO_BLOCK]
        if not gone:
            return
        self.pools[g].release(gone, partial(self.tree.has_block, g))
        table[start:first] = [NO_BLOCK] * len(table[start:first])
        blocks.num_dropped[g] = min(first, len(table))

    def distrust(self, blocks: RequestBlocks) -> None:
        """Its KV may hold NaN: its blocks leave the prefix tree at once.

        When they are released, those that nobody else holds are zeroed before they are used again
        (`take_blocks_to_zero`).
        """
        blocks.is_distrusted = True
        for g, table in enumerate(blocks.tables):
            for block in reversed(table):
                if block != NO_BLOCK:
                    self.tree.withdraw(g, block)

    def release(self, blocks: RequestBlocks) -> None:
        """Give back everything of a request that ended or was preempted, and that no step under way writes to."""
        self._live.remove(blocks)
        for node in _promised(blocks):
            node.num_writers -= 1
        for g, table in enumerate(blocks.tables):
            held = [block for block in reversed(table) if block != NO_BLOCK]
            blank = self.pools[g].release(held, partial(self.tree.has_block, g))
            if blocks.is_distrusted:
                self._to_zero[g].extend(blank)
        for node in reversed(blocks.path):
            node.num_users -= 1
            self.tree.prune(node)

    def take_blocks_to_zero(self) -> tuple[tuple[int, ...], ...]:
        """Per group, blocks to zero before the next step writes; empty when there are none. Taken once."""
        if not any(self._to_zero):
            return ()
        taken = tuple(tuple(blocks) for blocks in self._to_zero)
        self._to_zero = [[] for _ in self.groups]
        return taken

    def dump_state(self) -> dict[str, Any]:
        """Blocks by kind, per group."""
        pools = [
            {"group": describe([group]), "total": p.num_blocks, "used": p.num_used, "cached": p.num_cached,
             "blank": p.num_available - p.num_cached}
            for group, p in zip(self.groups, self.pools, strict=True)
        ]  # fmt: skip
        return {"block_size": self.block_size, "prefix_caching": self.enable_prefix_caching, "pools": pools}

    def check(self) -> list[str]:
        """Law 10: every invariant of pools, tables and tree; returns what is wrong, empty when all is well."""
        problems = []
        for g, pool in enumerate(self.pools):
            held = Counter(b for blocks in self._live for b in blocks.tables[g] if b != NO_BLOCK)
            problems += [f"group {g}: {p}" for p in pool.check(held, self.tree.blocks(g))]
        users = Counter(id(node) for blocks in self._live for node in blocks.path)
        writers = Counter(id(node) for blocks in self._live for node in _promised(blocks))
        for node in self.tree.nodes():
            if (node.num_users, node.num_writers) != (users[id(node)], writers[id(node)]):
                problems.append(
                    f"a prefix node counts {node.num_users} users and {node.num_writers} writers, "
                    f"{users[id(node)]} and {writers[id(node)]} requests have it"
                )
            if not (node.children or node.num_users or any(block != NO_BLOCK for block in node.blocks)):
                problems.append("a prefix node leads to nothing")
        return problems


def _promised(blocks: RequestBlocks) -> list[PrefixNode]:
    """Nodes that the request is still going to compute."""
    return blocks.path[blocks.num_published : blocks.num_published + blocks.num_promised]
