"""Programs give, bit by bit, what their operations give when they are called one by one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.kernels.library import Kernels
from headrace.model.kernels.linear import Activation, PackedLinear
from headrace.model.kernels.paged import Context, PagedCache, Rotation, attend, rotate_and_write
from headrace.model.kernels.program import Program, Step
from headrace.model.kernels.rows import norm

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BLOCK_SIZE = 8


@dataclass
class Case:
    """A layer with norms before and after its products, over rows of several lengths."""

    kernels: Kernels
    dtype: torch.dtype
    lens: list[int]
    heads: tuple[int, int]
    dim: int
    scale: float

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(sum(self.lens) + self.dim)
        kv, group = self.heads
        self.width, self.num_heads = 24, kv * group
        self.query_size = self.num_heads * self.dim
        qkv_size = self.query_size + 2 * kv * self.dim
        self.qkv = self.matrix(qkv_size, self.width)
        self.out = self.matrix(self.width, self.query_size)
        self.inner = self.matrix(2 * 40, self.width, gated=True)
        self.down = self.matrix(self.width, 40)
        self.first, self.second = self.random(self.width), self.random(self.width)
        self.whole = self.random(self.query_size)
        self.rotation = Rotation(self.dim // 2 * 2, False, 1, self.random(self.dim), self.random(self.dim), 1e-6)
        num_tokens = sum(self.lens)
        angles = torch.rand(1, num_tokens, self.dim // 2, generator=self.generator) * 6
        self.angles = angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        self.x = self.random(num_tokens, self.width)
        num_blocks = [-(-n // BLOCK_SIZE) for n in self.lens]
        table = torch.zeros(len(self.lens), max(num_blocks), dtype=torch.int32)
        slots, used = [], 0
        for row, (n, blocks) in enumerate(zip(self.lens, num_blocks, strict=True)):
            table[row, :blocks] = torch.arange(used, used + blocks)
            slots += range(used * BLOCK_SIZE, used * BLOCK_SIZE + n)
            used += blocks
        self.slots = torch.tensor(slots)
        starts = torch.tensor([0, *self.lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        self.context = Context(starts, torch.tensor(self.lens, dtype=torch.int32), table)
        shape = {"num_blocks": used, "block_size": BLOCK_SIZE, "num_kv_heads": kv}
        self.caches = [
            PagedCache(self.kernels, key_dim=self.dim, value_dim=self.dim, dtype=self.dtype, **shape) for _ in range(2)
        ]

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.dtype)

    def matrix(self, n: int, k: int, gated: bool = False) -> PackedLinear:
        return PackedLinear.of(self.kernels, self.random(n, k) / k**0.5, gated=gated)

    def one_by_one(self, kept: torch.Tensor) -> torch.Tensor:
        k = self.kernels
        qkv = self.qkv(norm(k, self.x, self.first, 1e-6))
        norm(k, qkv[:, : self.query_size], self.whole, 1e-6, out=qkv[:, : self.query_size])
        query = rotate_and_write(
            k, self.caches[0], self.rotation, qkv, *(angle[0] for angle in self.angles), self.slots
        )
        attended = attend(k, self.caches[0], query, self.context, scale=0.3).flatten(1)[kept]
        y = norm(k, self.out(attended.contiguous()), self.second, 1e-5)
        h = torch.add(self.x[kept], y, alpha=self.scale)
        return self.down(self.inner(h, activation=Activation.SILU), residual=h)

    def run(self, program: Program, result: torch.Tensor, kept: torch.Tensor | None = None) -> None:
        step = Step(self.context, self.slots)
        step.turn_by(self.angles, self.dtype)
        program.run(step, self.caches[1], (self.x, result), kept)

    def program(self, takes: bool) -> Program:
        p = Program(self.kernels, self.dtype, (self.width, self.width))
        x, result = 0, 1
        normed, qkv, attended = p.value(self.width), p.value(self.qkv.out_features), p.value(self.query_size)
        p.norm(x, normed, self.width, self.first, 1e-6)
        p.linear(self.qkv, normed, qkv)
        p.norm(qkv, qkv, self.query_size, self.whole, 1e-6)
        p.rotate(qkv, self.num_heads, self.rotation)
        p.attend(qkv, attended, self.num_heads, scale=0.3)
        if takes:
            x, attended = p.take([x, attended])
        y, h, inner = p.value(self.width), p.value(self.width), p.value(40)
        p.linear(self.out, attended, y)
        p.norm(y, y, self.width, self.second, 1e-5)
        p.add(y, x, h, self.scale)
        p.linear(self.inner, h, inner, activation=Activation.SILU)
        p.linear(self.down, inner, result, h)
        return p


@FEW
@given(
    lens=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dim=st.integers(1, 8).map(lambda d: 8 * d),
    scale=st.sampled_from([1.0, 0.25]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    data=st.data(),
)
def test_equals_its_operations(open_isa, lens, heads, dim, scale, dtype, data) -> None:
    case = Case(open_isa(2), dtype, lens, heads, dim, scale)
    num_tokens = len(case.x)
    takes = data.draw(st.booleans())
    chosen = data.draw(st.lists(st.integers(0, num_tokens - 1), min_size=1, max_size=8)) if takes else range(num_tokens)
    kept = torch.tensor(list(chosen))
    wanted = case.one_by_one(kept)
    result = torch.full_like(wanted, float("nan"))
    case.run(case.program(takes), result, kept if takes else None)
    assert torch.equal(case.caches[0].keys, case.caches[1].keys)
    assert torch.equal(case.caches[0].values, case.caches[1].values)
    limit = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 3e-2, "rtol": 3e-2}
    torch.testing.assert_close(result, wanted, **(limit if scale != 1.0 else {"atol": 0, "rtol": 0}))


@pytest.mark.parametrize("kept", [[-1], [3], [0, 99]])
def test_a_row_that_is_not_there(open_isa, kept) -> None:
    case = Case(open_isa(1), torch.float32, [1, 2], (1, 1), 8, 1.0)
    with pytest.raises(ValueError, match="layer"):
        case.run(case.program(takes=True), case.x.clone(), torch.tensor(kept))


@pytest.mark.parametrize("fault", ["x", "y", "residual", "column", "number"])
def test_values_that_do_not_fit(open_isa, fault) -> None:
    """Widths are held against the operations before anything is read."""
    case = Case(open_isa(1), torch.float32, [2], (1, 1), 8, 1.0)
    program = Program(case.kernels, torch.float32, (case.width, case.width))
    narrow = program.value(7)
    if fault == "column":
        program.norm(0, 1, case.width, None, 1e-6, column=1)
    elif fault == "number":
        program.add(0, 1, 17)
    elif fault == "residual":
        program.add(0, narrow, 1)
    else:
        places = {"x": (narrow, 1), "y": (0, narrow)}
        program.linear(case.qkv, *places[fault])
    with pytest.raises(ValueError, match="layer"):
        case.run(program, case.x.clone())


def test_a_cache_of_another_dtype(open_isa) -> None:
    case = Case(open_isa(1), torch.float32, [2], (1, 1), 8, 1.0)
    case.caches[1].dtype = torch.bfloat16
    with pytest.raises(ValueError, match="bfloat16"):
        case.run(case.program(takes=False), case.x.clone())


def test_what_it_was_given_may_move(open_isa) -> None:
    """A parameter whose memory is replaced later (weights that leave their file) does not matter."""
    case = Case(open_isa(1), torch.float32, [3], (1, 2), 8, 1.0)
    weights, program = case.first.clone(), case.program(takes=False)
    case.first.fill_(float("nan"))
    result = torch.empty_like(case.x)
    case.run(program, result)
    case.first.copy_(weights)
    assert torch.equal(result, case.one_by_one(torch.arange(3)))
