"""Which KV is in the cache, as a tree over token blocks.

A node stands for one full block of tokens after all its ancestors' tokens, so a path from a salt's root is a prefix::

    root ── (salt) ── (t0 … t31) ── (t32 … t63) ── …
                           └─────── (t32' … )

Children are found by a dictionary over the tokens themselves: the dictionary's hash of the tokens, reached through the
parent, is the chained hash of the literature (vLLM, "Automatic Prefix Caching"), and its comparison of keys verifies
every hit token by token, so no collision can give one request another's KV.

A node holds at most one block per cache group. It also counts its writers: running requests that are going to compute
it. A request that would compute the same tokens waits for them instead (see `KVCache.match`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

NO_BLOCK = -1


class PrefixNode:
    """One full block of tokens in its context.

    Attributes:
        parent: None for the root. tokens: the block's token ids; (salt,) on the level under the root.
        blocks: the block that holds its KV, per cache group, or NO_BLOCK.
        num_users: live requests that have it on their path, which keeps it in the tree.
        num_writers: those of them that are still going to compute it.
    """

    __slots__ = ("blocks", "children", "num_users", "num_writers", "parent", "tokens")

    def __init__(self, parent: PrefixNode | None, tokens: tuple[int | str | None, ...], num_groups: int) -> None:
        """A node without blocks; `PrefixTree` links it to its parent."""
        self.parent = parent
        self.tokens = tokens
        self.children: dict[tuple[int | str | None, ...], PrefixNode] = {}
        self.blocks = [NO_BLOCK] * num_groups
        self.num_users = 0
        self.num_writers = 0


class PrefixTree:
    """The prefixes in the cache of `num_groups` groups, in blocks of `block_size` tokens."""

    def __init__(self, num_groups: int, block_size: int) -> None:
        """An empty tree."""
        self._num_groups = num_groups
        self._block_size = block_size
        self._root = PrefixNode(None, (), num_groups)
        self._node_of: list[dict[int, PrefixNode]] = [{} for _ in range(num_groups)]

    def path(self, tokens: Sequence[int], num_blocks: int, salt: str | None) -> Iterator[PrefixNode]:
        """Nodes of the first `num_blocks` full blocks of `tokens`, as far as the tree has them."""
        node = self._root.children.get((salt,))
        size = self._block_size
        for start in range(0, num_blocks * size, size):
            node = node and node.children.get(tuple(tokens[start : start + size]))
            if node is None:
                return
            yield node

    def extend(self, parent: PrefixNode | None, tokens: Sequence[int], salt: str | None) -> PrefixNode:
        """The node of one full block after `parent` (None: first under `salt`), made when it is not there."""
        if parent is None:
            parent = self._child(self._root, (salt,))
        return self._child(parent, tuple(tokens))

    def _child(self, parent: PrefixNode, key: tuple[int | str | None, ...]) -> PrefixNode:
        node = parent.children.get(key)
        if node is None:
            node = parent.children[key] = PrefixNode(parent, key, self._num_groups)
        return node

    def publish(self, node: PrefixNode, group: int, block: int) -> None:
        """Offer a full, computed block for reuse; when the node has one already, the duplicate stays private."""
        if node.blocks[group] == NO_BLOCK:
            node.blocks[group] = block
            self._node_of[group][block] = node

    def has_block(self, group: int, block: int) -> bool:
        """Whether the block's content can be reused."""
        return block in self._node_of[group]

    def withdraw(self, group: int, block: int) -> None:
        """Take a block out of the tree (it is evicted, or its content is not to be trusted)."""
        node = self._node_of[group].pop(block, None)
        if node is not None:
            node.blocks[group] = NO_BLOCK
            self.prune(node)

    def prune(self, node: PrefixNode) -> None:
        """Drop `node` and its ancestors as far as they hold nothing, lead to nothing and nobody uses them."""
        while node.parent is not None and not (
            node.children or node.num_users or any(block != NO_BLOCK for block in node.blocks)
        ):
            del node.parent.children[node.tokens]
            node = node.parent

    def blocks(self, group: int) -> set[int]:
        """All reusable blocks of a group."""
        return set(self._node_of[group])

    def nodes(self) -> Iterator[PrefixNode]:
        """Every node but the root and the salts'."""
        stack = [node for salt in self._root.children.values() for node in salt.children.values()]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())
