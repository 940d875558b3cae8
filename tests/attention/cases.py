"""Random layers and batches for attention tests, and a cache that punishes every read it should not have."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st

from headrace.errors import ConfigError
from headrace.model.attention import registry
from headrace.model.attention.interface import AttentionBatch, AttentionImplementation, LayerSpec
from headrace.model.attention.reference import visible_positions
from headrace.model.attention.triton_paged import TritonAttention


def make_layer(num_heads: int = 4, num_kv_heads: int = 2, key_dim: int = 32, **features: Any) -> LayerSpec:
    """A layer; the value size and the scale follow from the key size unless they are given."""
    defaults = {"index": 0, "value_dim": key_dim, "scale": key_dim**-0.5}
    return LayerSpec(num_heads=num_heads, num_kv_heads=num_kv_heads, key_dim=key_dim, **(defaults | features))


FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one head": {"num_heads": 1, "num_kv_heads": 1},
    "eight to one": {"num_heads": 8, "num_kv_heads": 1},
    "window": {"window": 5},
    "chunk": {"chunk": 8},
    "softcap": {"softcap": 2.0},
    "sinks": {"has_sinks": True},
    "sinks and window": {"has_sinks": True, "window": 7},
    "wide values": {"key_dim": 48, "value_dim": 32},
    "narrow values": {"key_dim": 32, "value_dim": 80},
}
"""One layer for each feature."""


@st.composite
def layers(draw: st.DrawFn) -> LayerSpec:
    """Layers of every shape and any mix of features."""
    num_kv_heads = draw(st.integers(1, 3))
    key_dim = draw(st.sampled_from([32, 64, 80, 256]))
    return make_layer(
        num_heads=num_kv_heads * draw(st.integers(1, 8)),
        num_kv_heads=num_kv_heads,
        key_dim=key_dim,
        value_dim=draw(st.sampled_from([key_dim, key_dim, 32, 128])),
        scale=draw(st.sampled_from([key_dim**-0.5, 0.3])),
        window=draw(st.none() | st.integers(1, 20)),
        chunk=draw(st.none() | st.integers(1, 20)),
        softcap=draw(st.none() | st.sampled_from([1.0, 30.0])),
        has_sinks=draw(st.booleans()),
    )


@st.composite
def row_lengths(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(tokens already in the cache, tokens of this step) of each row, single-token rows first."""
    decodes = draw(st.lists(st.tuples(st.integers(0, 40), st.just(1)), max_size=4))
    chunks = draw(st.lists(st.tuples(st.just(0) | st.integers(1, 30), st.integers(2, 14)), max_size=4))
    return decodes + chunks or [(0, 3)]


def served_on_the_cpu() -> list[str]:
    """Names of the implementations that run here on CPU tensors."""
    names = []
    for name in registry.available():
        try:
            refusal = registry.get(name).refusal([make_layer()], torch.float32, torch.device("cpu"))
        except ConfigError:  # not built here
            continue
        if refusal is None:
            names.append(name)
    return names


@dataclass
class Case:
    """Some rows with their past and their tokens of this step, and where their blocks lie.

    Block 0 belongs to nobody, so that a dropped entry of a block table (0) is never right to read.
    """

    layer: LayerSpec
    rows: list[tuple[int, int]]
    block_size: int
    num_blocks: int
    tables: list[list[int]]
    query: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    sinks: torch.Tensor | None

    def batch(self, device: str = "cpu") -> AttentionBatch:
        """The batch as the runner builds it: blocks that no query of this step can see are dropped."""
        starts = [0]
        slots: list[int] = []
        width = max(len(table) for table in self.tables)
        padded = []
        for table, (past, new) in zip(self.tables, self.rows, strict=True):
            starts.append(starts[-1] + new)
            slots += [
                table[p // self.block_size] * self.block_size + p % self.block_size for p in range(past, past + new)
            ]
            in_sight = min(visible_positions(past, self.layer)) // self.block_size
            padded.append([0] * in_sight + table[in_sight:] + [0] * (width - len(table)))
        context_lens = [past + new for past, new in self.rows]
        return AttentionBatch(
            query_lens=[new for _, new in self.rows],
            context_lens=context_lens,
            num_decodes=sum(new == 1 for _, new in self.rows),
            query_start=torch.tensor(starts, dtype=torch.int32, device=device),
            context_len=torch.tensor(context_lens, dtype=torch.int32, device=device),
            slot_mapping=torch.tensor(slots, device=device),
            block_table=torch.tensor(padded, dtype=torch.int32, device=device),
            block_size=self.block_size,
        )

    def new_tokens(self, of_rows: list[torch.Tensor]) -> torch.Tensor:
        """This step's tokens of all rows, [T, …], as the transposed view that transformers hands over."""
        step = torch.cat([tokens[past:] for tokens, (past, _) in zip(of_rows, self.rows, strict=True)])
        return step.transpose(0, 1).contiguous().transpose(0, 1)

    def cache(self, implementation: AttentionImplementation, dtype: torch.dtype, device: str = "cpu") -> Any:
        """A cache that holds the rows' past; NaN in blocks of nobody, large stale numbers in the rows' own."""
        cache = implementation.allocate(self.layer, self.num_blocks, self.block_size, dtype, torch.device(device))
        nobody = sorted(set(range(self.num_blocks)) - {block for table in self.tables for block in table})
        if implementation.name == "reference":
            by_block = [t.unflatten(0, (self.num_blocks, self.block_size)) for t in (cache.keys, cache.values)]
        else:
            by_block = [cache.keys, cache.values]
        for tensor in by_block:
            tensor.fill_(50.0)
            tensor[nobody] = torch.nan
        past_rows = [i for i, (past, _) in enumerate(self.rows) if past]
        if past_rows:
            past = replace(
                self,
                rows=[(0, self.rows[i][0]) for i in past_rows],
                tables=[self.tables[i] for i in past_rows],
                layer=replace(self.layer, window=None, chunk=None),
            ).batch(device)
            past.num_decodes = 0
            keys, values = (torch.cat([of[i][: self.rows[i][0]] for i in past_rows]) for of in (self.keys, self.values))
            query = torch.zeros(len(keys), self.layer.num_heads, self.layer.key_dim, dtype=dtype)
            inputs = [tensor.to(device, dtype) for tensor in (query, keys, values)]
            if isinstance(implementation, TritonAttention):  # its attention takes seconds in the interpreter
                implementation.write(cache, *inputs[1:], past.slot_mapping)
                return cache
            implementation.prepare(past, [self.layer])
            implementation.forward(*inputs, self.sinks_on(device), self.layer, cache, past)
        return cache

    def sinks_on(self, device: str) -> torch.Tensor | None:
        """The sinks, where there are any."""
        return None if self.sinks is None else self.sinks.to(device)

    def run(
        self,
        implementation: AttentionImplementation,
        dtype: torch.dtype,
        device: str = "cpu",
        cache_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """One step of the implementation after the rows' past, [T, H, E]."""
        cache = self.cache(implementation, cache_dtype or dtype, device)
        batch = self.batch(device)
        implementation.prepare(batch, [self.layer])
        inputs = [t.to(device, dtype) for t in (self.query, self.new_tokens(self.keys), self.new_tokens(self.values))]
        return implementation.forward(*inputs, self.sinks_on(device), self.layer, cache, batch)


def make_case(
    layer: LayerSpec,
    rows: list[tuple[int, int]],
    block_size: int = 4,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Case:
    """Random tokens, rounded to `dtype`, for the given rows, in shuffled blocks."""
    lens = [past + new for past, new in rows]
    needed = [-(-n // block_size) for n in lens]
    num_blocks = sum(needed) + 4
    free = list(range(1, num_blocks))
    random.Random(seed).shuffle(free)
    generator = torch.Generator().manual_seed(seed)

    def tokens(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    num_tokens = sum(new for _, new in rows)
    return Case(
        layer=layer,
        rows=rows,
        block_size=block_size,
        num_blocks=num_blocks,
        tables=[[free.pop() for _ in range(n)] for n in needed],
        query=tokens(layer.num_heads, num_tokens, layer.key_dim).transpose(0, 1),
        keys=[tokens(n, layer.num_kv_heads, layer.key_dim) for n in lens],
        values=[tokens(n, layer.num_kv_heads, layer.value_dim) for n in lens],
        sinks=tokens(layer.num_heads) if layer.has_sinks else None,
    )
