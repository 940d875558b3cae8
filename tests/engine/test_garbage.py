"""The collector's pause."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from headrace.engine.garbage import collections_paused


class Node:
    """What a cycle is made of."""

    itself: Node


def cycle() -> weakref.ref[Node]:
    node = Node()
    node.itself = node
    return weakref.ref(node)


@pytest.fixture
def collector() -> Iterator[None]:
    """On, with nothing frozen, and as it was afterwards."""
    was_enabled, num_frozen = gc.isenabled(), gc.get_freeze_count()
    gc.unfreeze()
    gc.enable()
    yield
    (gc.enable if was_enabled else gc.disable)()
    if num_frozen:
        gc.freeze()


@pytest.mark.usefixtures("collector")
def test_nothing_is_collected_inside_and_all_of_it_later() -> None:
    with collections_paused():
        garbage = cycle()
        kept = [[] for _ in range(10 * gc.get_threshold()[0])]  # more than enough for a collection
        assert garbage() is not None
    assert gc.isenabled()
    assert garbage() is not None
    assert not {id(each) for each in kept} & {id(each) for each in gc.get_objects(0)}  # they count as old
    gc.collect()
    assert garbage() is None


@pytest.mark.usefixtures("collector")
def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collections_paused():
        pass
    assert not gc.isenabled()


@pytest.mark.usefixtures("collector")
def test_an_error_ends_the_pause_and_pauses_nest() -> None:
    def fail() -> None:
        with collections_paused():
            with collections_paused():
                pass
            assert not gc.isenabled()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert gc.isenabled()


def test_what_others_have_frozen_stays_frozen() -> None:
    code = """
import gc
from headrace.engine.garbage import collections_paused
gc.freeze()
before = gc.get_freeze_count()
with collections_paused():
    more = [[] for _ in range(10000)]
assert abs(gc.get_freeze_count() - before) < 100, (before, gc.get_freeze_count())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
