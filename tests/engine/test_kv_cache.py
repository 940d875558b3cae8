"""Block tables and the prefix tree: what is shared is the right prefix, and nothing is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.engine.cache.groups import CacheGroup
from headrace.engine.cache.kv_cache import NO_BLOCK, KVCache, PrefixHit, RequestBlocks

GROUPS = [
    [CacheGroup((0,), 1)],
    [CacheGroup((0,), 1, window=5)],
    [CacheGroup((0,), 1, chunk=6)],
    [CacheGroup((0,), 1), CacheGroup((1,), 1, window=3)],
    [CacheGroup((0,), 1), CacheGroup((1,), 1, window=9), CacheGroup((2,), 1, chunk=8)],
]
# Few different tokens and lengths around the block size: prefixes meet, and part within a block.
PROMPTS = st.lists(st.integers(0, 1), min_size=1, max_size=20)


class CacheMachine(RuleBasedStateMachine):
    """Live requests with what they have computed; `content[g][block]` is the prefix that a block was written for."""

    @initialize(groups=st.sampled_from(GROUPS), size=st.sampled_from([1, 2, 4]), caching=st.booleans())
    def start(self, groups: list[CacheGroup], size: int, caching: bool) -> None:
        self.size = size
        self.cache = KVCache(groups, [24 // size + 4] * len(groups), size, caching)
        self.live: list[dict[str, Any]] = []
        self.content: list[dict[int, tuple[Any, ...]]] = [{} for _ in groups]
        self.to_zero: list[set[int]] = [set() for _ in groups]

    @rule(tokens=PROMPTS, salt=st.sampled_from([None, None, None, "a"]))
    def begin(self, tokens: list[int], salt: str | None) -> None:
        hit = self.cache.match(tokens, salt)
        assert len(hit.nodes) * self.size < len(tokens), "a token is always left to compute"
        blocks = self.cache.begin(tokens, hit, salt)
        computed = len(hit.nodes) * self.size
        self.live.append({"tokens": list(tokens), "salt": salt, "blocks": blocks, "computed": computed})

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        """A step: as many tokens as there is room for, and sometimes a sampled one."""
        request = data.draw(st.sampled_from(self.live))
        blocks, start = request["blocks"], request["computed"]
        if start == len(request["tokens"]):
            request["tokens"].append(data.draw(st.integers(0, 1)))
        stop = min(start + data.draw(st.integers(1, 8)), len(request["tokens"]))
        room = self.cache.room(blocks)
        before = [list(table) for table in blocks.tables]
        if not self.cache.grow(blocks, stop):
            assert room < stop, "there was room"
            assert before == [list(table) for table in blocks.tables], "a failed growth changed a table"
            return
        assert room >= stop
        self._write(request, start, stop)
        self.cache.advance(blocks, request["tokens"], stop)
        request["computed"] = stop

    def _write(self, request: dict[str, Any], start: int, stop: int) -> None:
        self.cache.take_blocks_to_zero()
        for g, table in enumerate(request["blocks"].tables):
            self.to_zero[g].clear()
            for i in range(start // self.size, -(-stop // self.size)):
                block = table[i]
                assert block != NO_BLOCK
                others = [r for r in self.live if r is not request and block in r["blocks"].tables[g]]
                assert not others, "a block that is written belongs to one request"
                self.content[g][block] = self._prefix(request, min((i + 1) * self.size, stop))

    def _prefix(self, request: dict[str, Any], stop: int) -> tuple[Any, ...]:
        return (request["salt"], *request["tokens"][:stop])

    @precondition(lambda self: self.live)
    @rule(data=st.data(), distrust=st.booleans())
    def release(self, data: st.DataObject, distrust: bool) -> None:
        request = data.draw(st.sampled_from(self.live))
        self.live.remove(request)
        held = [{b for b in table if b != NO_BLOCK} for table in request["blocks"].tables]
        if distrust:
            self.cache.distrust(request["blocks"])
        self.cache.release(request["blocks"])
        if distrust:
            for g, blocks in enumerate(held):
                others = {b for r in self.live for b in r["blocks"].tables[g]}
                self.to_zero[g] |= blocks - others
                assert not any(self.cache.tree.has_block(g, block) for block in blocks), "a bad block can be reused"

    @precondition(lambda self: any(self.to_zero))
    @rule()
    def zero(self) -> None:
        taken = self.cache.take_blocks_to_zero()
        assert [set(group) for group in taken] == self.to_zero
        assert self.cache.take_blocks_to_zero() == (), "taken once"
        self.to_zero = [set() for _ in self.to_zero]

    @invariant()
    def integrity(self) -> None:
        if hasattr(self, "cache"):
            assert self.cache.check() == []

    @invariant()
    def every_request_sees_its_own_prefix(self) -> None:
        for request in getattr(self, "live", []):
            for g, group in enumerate(self.cache.groups):
                table = request["blocks"].tables[g]
                for i in range(group.first_visible(request["computed"]) // self.size, len(table)):
                    stop = min((i + 1) * self.size, request["computed"])
                    if stop > i * self.size:
                        assert self.content[g][table[i]] == self._prefix(request, stop)

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for request in self.live:
            self.cache.release(request["blocks"])
        assert [pool.num_used for pool in self.cache.pools] == [0] * len(self.cache.pools)
        assert self.cache.check() == []


TestKVCache = CacheMachine.TestCase
TestKVCache.settings = settings(max_examples=50, stateful_step_count=30)


def _computed(cache: KVCache, tokens: list[int], salt: str | None = None) -> RequestBlocks:
    blocks = cache.begin(tokens, cache.match(tokens, salt), salt)
    assert cache.grow(blocks, len(tokens))
    cache.advance(blocks, tokens, len(tokens))
    return blocks


def _cache(num_blocks: int, *groups: CacheGroup) -> KVCache:
    groups = groups or (CacheGroup((0,), 1),)
    return KVCache(groups, [num_blocks] * len(groups), 4, enable_prefix_caching=True)


def test_a_prefix_is_reused_in_full_blocks_and_up_to_the_last_token_but_one():
    cache = _cache(20)
    cache.release(_computed(cache, list(range(12))))
    assert len(cache.match(list(range(12)), None).nodes) == 2  # the third block holds the last token
    assert len(cache.match(list(range(13)), None).nodes) == 3
    assert len(cache.match([*range(6), 99, *range(7, 12)], None).nodes) == 1  # parts within the second block
    assert cache.match([99, *range(1, 12)], None) == PrefixHit()


def test_a_salt_keeps_prefixes_apart():
    cache = _cache(20)
    cache.release(_computed(cache, list(range(12)), "alice"))
    assert len(cache.match(list(range(12)), "alice").nodes) == 2
    for other in (None, "bob", ""):
        assert cache.match(list(range(12)), other) == PrefixHit()


def test_what_somebody_computes_is_awaited_until_he_is_gone():
    cache = _cache(20)
    tokens = list(range(12))
    blocks = cache.begin(tokens, cache.match(tokens, None), None)
    assert cache.match(tokens, None).awaited
    assert cache.match([*tokens[:8], 99, 99, 99, 99], None).awaited
    assert not cache.match(tokens[:4], None).awaited  # its only block holds its last token, so it computes it itself
    cache.grow(blocks, 4)
    cache.advance(blocks, tokens, 4)
    hit = cache.match(tokens, None)
    assert (len(hit.nodes), hit.awaited) == (1, True)
    cache.release(blocks)
    hit = cache.match(tokens, None)
    assert (len(hit.nodes), hit.awaited) == (1, False)


def test_eviction_takes_the_tail_of_a_prefix_before_its_head_and_the_older_prefix_first():
    cache = _cache(8)
    old, new = [1] * 13, [2] * 13
    cache.release(_computed(cache, old))
    cache.release(_computed(cache, new))  # 3 reusable blocks each, 2 blank
    taker = cache.begin([3] * 16, PrefixHit(), None)
    assert cache.grow(taker, 16)  # 2 blank blocks and 2 evicted ones
    assert len(cache.match(old, None).nodes) == 1
    assert len(cache.match(new, None).nodes) == 3


def test_a_window_needs_only_its_last_blocks_to_go_on():
    """The window's older blocks were given back and evicted; the prefix is still a hit, with holes in its table."""
    cache = _cache(20, CacheGroup((0,), 1), CacheGroup((1,), 1, window=5))
    tokens = list(range(17))
    first = _computed(cache, tokens)
    assert first.tables[1][:3] == [NO_BLOCK] * 3
    dropped = cache.begin([7] * 70, PrefixHit(), None)
    assert cache.pools[1].num_cached == 3
    cache.pools[1].allocate(cache.pools[1].num_available)  # evicts them
    hit = cache.match(tokens, None)
    assert len(hit.nodes) == 4
    second = cache.begin(tokens, hit, None)
    assert second.tables[0] == first.tables[0][:4]
    assert second.tables[1] == [NO_BLOCK] * 3 + first.tables[1][3:4]
    assert dropped.tables == ([], [])


def test_without_prefix_caching_nothing_is_kept():
    cache = KVCache([CacheGroup((0,), 1)], [10], 4, enable_prefix_caching=False)
    cache.release(_computed(cache, list(range(12))))
    assert cache.match(list(range(12)), None) == PrefixHit()
    assert cache.pools[0].num_cached == 0
    assert not list(cache.tree.nodes())


def test_the_tree_forgets_what_leads_nowhere():
    cache = _cache(4)
    for i in range(50):
        cache.release(_computed(cache, [i] * 14))
    assert len(list(cache.tree.nodes())) <= 4
    bad = _computed(cache, [99] * 14)
    cache.distrust(bad)
    cache.release(bad)
    assert len(list(cache.tree.nodes())) == 0
