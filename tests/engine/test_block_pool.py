"""The block pool against a model of it: every block is blank, cached or used, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.engine.cache.block_pool import BlockPool

NUM_BLOCKS = 6


class PoolMachine(RuleBasedStateMachine):
    """Holders come and go; `cached` is the model's list of reusable blocks, least recently used first."""

    def __init__(self) -> None:
        super().__init__()
        self.evicted: list[int] = []
        self.pool = BlockPool(NUM_BLOCKS, self.evicted.append)
        self.held: dict[int, int] = {}
        self.cached: list[int] = []
        self.reusable: set[int] = set()

    @rule(count=st.integers(0, NUM_BLOCKS + 1))
    def allocate(self, count: int) -> None:
        free = NUM_BLOCKS - len(self.held)
        if count > free:
            with pytest.raises(ValueError, match="available"):
                self.pool.allocate(count)
            return
        num_blank = free - len(self.cached)
        victims = self.cached[: max(count - num_blank, 0)]
        self.evicted.clear()
        blocks = self.pool.allocate(count)
        assert self.evicted == victims, "blank blocks first, then the least recently used"
        assert len(set(blocks)) == count
        assert not set(blocks) & set(self.held)
        self.held.update(dict.fromkeys(blocks, 1))
        self.cached = self.cached[len(victims) :]
        self.reusable -= set(victims)

    @precondition(lambda self: self.held or self.cached)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted({*self.held, *self.cached})))
        self.pool.hold(block)
        self.held[block] = self.held.get(block, 0) + 1
        if block in self.cached:
            self.cached.remove(block)

    @precondition(lambda self: len(self.held) + len(self.cached) < NUM_BLOCKS)
    @rule(data=st.data())
    def holding_a_blank_block_is_refused(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(set(range(NUM_BLOCKS)) - {*self.held, *self.cached})))
        with pytest.raises(KeyError):
            self.pool.hold(block)
        with pytest.raises(ValueError, match="nobody holds it"):
            self.pool.release([block], lambda _: False)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        blocks = data.draw(st.lists(st.sampled_from(sorted(self.held)), unique=True))
        keep = data.draw(st.sets(st.sampled_from(sorted(self.held))))
        self.reusable |= keep & set(blocks)  # published while used, as the cache does it
        blank = self.pool.release(blocks, lambda block: block in self.reusable)
        expected = [block for block in blocks if self.held[block] == 1 and block not in self.reusable]
        assert blank == expected
        for block in blocks:
            self.held[block] -= 1
            if not self.held[block]:
                del self.held[block]
                if block in self.reusable:
                    self.cached.append(block)

    @invariant()
    def adds_up(self) -> None:
        assert self.pool.check(self.held, self.reusable) == []
        assert self.pool.num_used == len(self.held)
        assert self.pool.num_cached == len(self.cached)
        assert self.pool.num_available == NUM_BLOCKS - len(self.held)


TestBlockPool = PoolMachine.TestCase
TestBlockPool.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_released_block_is_written_next():
    """Warm in the processor's cache; and a sliding window goes round its own blocks like a ring."""
    pool = BlockPool(8, lambda block: None)
    first = pool.allocate(3)
    pool.release([first[1]], lambda block: False)
    assert pool.allocate(1) == [first[1]]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda pool: pool._holders.__setitem__(0, 2), "counts 2 holders"),
        (lambda pool: pool._blank.append(5), "twice"),
        (lambda pool: pool._cached.__setitem__(4, None), "blank and cached"),
        (lambda pool: pool._blank.remove(5), "wrong set"),
    ],
)
def test_the_check_finds_what_is_broken(break_it, words):
    pool = BlockPool(6, lambda block: None)
    held = dict.fromkeys(pool.allocate(2), 1)
    assert pool.check(held, set()) == []
    break_it(pool)
    assert any(words in problem for problem in pool.check(held, set()))
