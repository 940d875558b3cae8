"""Paged attention against float64, and what it promises about bits and about NaN."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.library import Kernels
from headrace.model.kernels.paged import Context, PagedCache, attend

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Case:
    """A batch: rows of (tokens computed before, tokens of this step), and a layer."""

    rows: tuple[tuple[int, int], ...]
    num_kv_heads: int = 2
    group: int = 2
    key_dim: int = 32
    value_dim: int = 32
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    sinks: bool = False
    seed: int = 0

    def tensor(self, row: int, kind: int, *shape: int) -> torch.Tensor:
        """Random values that depend on the row alone, so that a row is the same in any batch."""
        generator = torch.Generator().manual_seed(self.seed * 1000 + sum(self.rows[row]) * 10 + kind)
        return torch.randn(shape, generator=generator).to(self.dtype)

    def qkv(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of the row's whole context."""
        length, heads = sum(self.rows[row]), self.num_kv_heads
        query = self.tensor(row, 0, length, heads * self.group, self.key_dim)
        return (
            query,
            self.tensor(row, 1, length, heads, self.key_dim),
            self.tensor(row, 2, length, heads, self.value_dim),
        )

    def head_sinks(self) -> torch.Tensor | None:
        """A logit per head."""
        return torch.linspace(-1, 2, self.num_kv_heads * self.group) if self.sinks else None


def run(kernels: Kernels, case: Case, *, poison: bool = False) -> list[torch.Tensor]:
    """Write every row's context and attend with its last tokens; the outputs per row.

    poison: whatever no row wrote is NaN, within the rows' last blocks too.
    """
    size, lengths = case.block_size, [sum(row) for row in case.rows]
    counts = [-(-length // size) for length in lengths]
    num_blocks = sum(counts) + 1
    cache = PagedCache(
        kernels,
        num_blocks=num_blocks,
        block_size=size,
        num_kv_heads=case.num_kv_heads,
        key_dim=case.key_dim,
        value_dim=case.value_dim,
        dtype=case.dtype,
    )
    if poison:
        cache.keys.fill_(float("nan"))
        cache.values.fill_(float("nan"))
    order = torch.randperm(num_blocks - 1, generator=torch.Generator().manual_seed(case.seed)) + 1
    table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
    queries, first = [], 0
    for row, count in enumerate(counts):
        blocks = order[first : first + count]
        first += count
        table[row, :count] = blocks.int()
        query, key, value = case.qkv(row)
        position = torch.arange(lengths[row])
        cache.write(kernels, key, value, blocks[position // size] * size + position % size)
        queries.append(query[case.rows[row][0] :])
    lens = [row[1] for row in case.rows]
    start = torch.tensor([0, *np.cumsum(lens).tolist()], dtype=torch.int32)
    context = Context(start, torch.tensor(lengths, dtype=torch.int32), table)
    out = attend(
        kernels,
        cache,
        torch.cat(queries),
        context,
        scale=case.key_dim**-0.5,
        window=case.window,
        chunk=case.chunk,
        softcap=case.softcap,
        sinks=case.head_sinks(),
    )
    return list(out.split(lens))


def reference(case: Case, row: int) -> np.ndarray:
    """The row's outputs in float64, straight from the definition."""
    query, key, value = (t.double().numpy() for t in case.qkv(row))
    before, tokens = case.rows[row]
    group, sinks = case.group, None if not case.sinks else case.head_sinks().double().numpy()
    out = np.empty((tokens, case.num_kv_heads * group, case.value_dim))
    for t in range(tokens):
        p = before + t
        first = max(0, p - case.window + 1 if case.window else 0, p // case.chunk * case.chunk if case.chunk else 0)
        for head in range(case.num_kv_heads * group):
            scores = key[first : p + 1, head // group] @ query[p, head] * case.key_dim**-0.5
            if case.softcap:
                scores = case.softcap * np.tanh(scores / case.softcap)
            top = max(scores.max(), sinks[head] if sinks is not None else -np.inf)
            weights = np.exp(scores - top)
            total = weights.sum() + (np.exp(sinks[head] - top) if sinks is not None else 0.0)
            out[t, head] = weights @ value[first : p + 1, head // group] / total
    return out


def limit(case: Case) -> float:
    """The error that rounding allows."""
    return 2e-5 if case.dtype == torch.float32 else 2e-2


ROWS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 700), st.just(1)),
        st.tuples(st.integers(0, 300), st.integers(1, 40)),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
CASES = st.builds(
    Case,
    rows=ROWS,
    num_kv_heads=st.integers(1, 3),
    group=st.sampled_from([1, 2, 3, 4, 7, 16]),
    key_dim=st.integers(1, 32).map(lambda d: 8 * d),
    value_dim=st.integers(1, 32).map(lambda d: 8 * d),
    block_size=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 512]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    window=st.none() | st.integers(1, 400),
    chunk=st.none() | st.integers(1, 400),
    softcap=st.none() | st.floats(1.0, 50.0),
    sinks=st.booleans(),
    seed=st.integers(0, 5),
)


@FEW
@given(case=CASES, threads=st.integers(1, 3))
def test_equals_float64(open_isa, case: Case, threads: int) -> None:
    """Any batch and layer; and nothing that no row wrote is ever used."""
    for row, out in enumerate(run(open_isa(threads), case, poison=True)):
        np.testing.assert_allclose(out.double().numpy(), reference(case, row), atol=limit(case), rtol=0)


@FEW
@given(case=CASES)
def test_a_query_is_the_same_in_any_batch_chunk_and_number_of_threads(open_isa, case: Case) -> None:
    """To the bit: alone and with neighbours, its prompt in one piece or in two, on one thread or three."""
    together = run(open_isa(3), case)
    for row, (before, tokens) in enumerate(case.rows):
        alone = replace(case, rows=((before, tokens),))
        assert torch.equal(run(open_isa(1), alone)[0], together[row])
        if tokens > 1:
            later = replace(case, rows=((before + tokens - 1, 1),))
            assert torch.equal(run(open_isa(2), later)[0], together[row][-1:])


def test_a_long_context_that_is_split_over_threads(open_isa) -> None:
    """One query over many spans: split on three threads, not on one, and the same bits."""
    for dtype in (torch.float32, torch.bfloat16):
        case = Case(((5000, 1), (3000, 3)), dtype=dtype, sinks=True)
        split, whole = run(open_isa(3), case), run(open_isa(1), case)
        for row in range(2):
            assert torch.equal(split[row], whole[row])
            np.testing.assert_allclose(split[row].double().numpy(), reference(case, row), atol=limit(case), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_of_one_row_stays_there(open_isa, dtype: torch.dtype) -> None:
    """A row that holds NaN gives NaN from that token on; its earlier tokens and the other rows what they gave."""
    clean = Case(((300, 20), (40, 1), (500, 1)), dtype=dtype)

    class Broken(Case):
        def qkv(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            query, key, value = super().qkv(row)
            if row == 0:
                key[310], value[310] = float("nan"), float("nan")
            return query, key, value

    expected = run(open_isa(2), clean)
    got = run(open_isa(2), Broken(clean.rows, dtype=dtype))
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], expected[2])
    assert torch.equal(got[0][:10], expected[0][:10])
    assert got[0][10:].isnan().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reach", [{"window": 8}, {"chunk": 16}])
def test_a_value_that_some_queries_of_a_tile_do_not_see_does_not_touch_them(
    open_isa, dtype: torch.dtype, bad: float, reach: dict[str, int]
) -> None:
    """Before they come to it, and when it is out of their window or in the chunk before theirs."""
    clean = Case(((16, 40),), group=3, dtype=dtype, **reach)

    class Broken(Case):
        def qkv(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            query, key, value = super().qkv(row)
            value[21] = bad
            return query, key, value

    expected = run(open_isa(2), clean)[0]
    got = run(open_isa(2), Broken(clean.rows, group=3, dtype=dtype, **reach))[0]
    sees = torch.tensor([21 <= p < (29 if "window" in reach else 32) for p in range(16, 56)])
    assert torch.equal(got[~sees], expected[~sees])
    assert not got[sees].isfinite().any()


@dataclass(frozen=True)
class Beginning(Case):
    """The first tokens of one prompt of 300."""

    def tensor(self, row: int, kind: int, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(kind)
        return torch.randn((300, *shape[1:]), generator=generator).to(self.dtype)[: shape[0]]


LAYERS: tuple[dict[str, Any], ...] = (
    {},
    {"key_dim": 24, "value_dim": 40, "block_size": 1},
    {"window": 100, "softcap": 9.0},
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_prompt_of_several_tasks_is_the_same_in_one_piece_and_in_many(
    open_isa, dtype: torch.dtype, layer: dict[str, Any]
) -> None:
    """300 tokens over two spans, as one chunk and in chunks of odd and even lengths, to the bit."""
    whole = run(open_isa(2), Beginning(((0, 300),), group=3, dtype=dtype, **layer))[0]
    for begin, end in itertools.pairwise([0, 7, 130, 131, 255, 256, 299, 300]):
        part = run(open_isa(1), Beginning(((begin, end - begin),), group=3, dtype=dtype, **layer))[0]
        assert torch.equal(part, whole[begin:end])


def test_what_the_kernels_do_not_do_is_refused(open_isa) -> None:
    """By name, before anything is written."""
    take = {"num_blocks": 2, "block_size": 16, "num_kv_heads": 1}
    with pytest.raises(ValueError, match="float16"):
        PagedCache(open_isa(1), key_dim=64, value_dim=64, dtype=torch.float16, **take)
    with pytest.raises(ValueError, match="576"):
        PagedCache(open_isa(1), key_dim=576, value_dim=64, dtype=torch.float32, **take)
