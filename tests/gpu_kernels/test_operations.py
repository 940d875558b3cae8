"""Norms, activations and rotation into the cache against float64, and as operators that compilers can look through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.kernels.linear import Activation
from headrace.model.surgery.activations import FUNCTIONS
from headrace.model.surgery.norm import Norm
from headrace.model.surgery.rotation import Rope
from headrace.model.triton_kernels import operations
from headrace.model.triton_kernels.operations import OPERATORS

LIMITS = {torch.float32: 4e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DTYPES = st.sampled_from(list(LIMITS))
FEW = settings(max_examples=100 if torch.cuda.is_available() else 6)
EPS = 1e-5


def random(*shape: int, dtype: torch.dtype, device: str, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_near(got: torch.Tensor, expected: torch.Tensor) -> None:
    limit = LIMITS[got.dtype]
    torch.testing.assert_close(got.double(), expected.double(), rtol=limit, atol=limit)


@FEW
@given(
    m=st.integers(1, 6),
    n=st.integers(1, 600),
    dtype=DTYPES,
    centered=st.booleans(),
    held=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    offset=st.sampled_from([0.0, 1.0]),
)
def test_norms(device, m, n, dtype, centered, held, offset):
    wide = random(m, n + 3, dtype=dtype, device=device, seed=1)
    x = wide[:, :n]  # rows with a stride
    weight, bias = (random(n, dtype=dtype, device=device, seed=i) if held[i] else None for i in (0, 1))
    norm = Norm(n, EPS, centered, offset if held[0] else 0.0, weight, bias)
    options = (weight, bias, EPS, centered, norm.offset)
    if held[2]:
        residual = random(m, n, dtype=dtype, device=device, seed=3)
        sums, got = OPERATORS.add_norm(x, residual, *options)
        torch.testing.assert_close(sums, x + residual)
        assert_near(got, norm.reference(sums))
    else:
        assert_near(OPERATORS.norm(x, *options), norm.reference(x))


@FEW
@given(
    m=st.integers(1, 5),
    n=st.integers(1, 300),
    dtype=DTYPES,
    gated=st.booleans(),
    activation=st.sampled_from([a for a in Activation if a in FUNCTIONS]),
)
def test_activations(device, m, n, dtype, gated, activation):
    x = random(m, 2 * n if gated else n, dtype=dtype, device=device) * 4
    gate = FUNCTIONS[activation](x[:, :n].double())
    expected = gate * x[:, n:].double() if gated else gate
    got = OPERATORS.activate(x, int(activation), gated)
    torch.testing.assert_close(got.double(), expected, rtol=2 * LIMITS[dtype], atol=2 * LIMITS[dtype])


def test_an_activation_wider_than_a_block(device):
    x = random(2, 2 * 2500, dtype=torch.float32, device=device)
    assert_near(OPERATORS.activate(x, Activation.SILU, True), FUNCTIONS[Activation.SILU](x[:, :2500]) * x[:, 2500:])


@st.composite
def rotations(draw: st.DrawFn) -> dict[str, Any]:
    dim = 8 * draw(st.integers(1, 20))
    return {
        "kv_heads": draw(st.integers(1, 3)),
        "group": draw(st.integers(1, 5)),
        "dim": dim,
        "value_dim": draw(st.sampled_from([dim, 24])),
        "rotary_dim": int(dim * draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))) // 2 * 2,
        "interleaved": draw(st.booleans()),
        "angle_step": draw(st.sampled_from([1, 2])),
        "with_norm": draw(st.booleans()),
        "dtype": draw(DTYPES),
    }


def rotation_case(
    device: str, *, kv_heads: int, group: int, dim: int, value_dim: int, rotary_dim: int, angle_step: int,
    with_norm: bool, dtype: torch.dtype, **_: Any,
) -> dict[str, torch.Tensor | None]:  # fmt: skip
    sizes = [kv_heads * group * dim, kv_heads * dim, kv_heads * value_dim]
    angles = random(5, max(1, rotary_dim // 2), dtype=torch.float32, device=device).repeat_interleave(angle_step, dim=1)
    weight = [random(dim, dtype=dtype, device=device, seed=seed) if with_norm else None for seed in (1, 2)]
    return {
        "qkv": random(5, sum(sizes), dtype=dtype, device=device),
        "query_norm": weight[0],
        "key_norm": weight[1],
        "cos": angles.cos().to(dtype),
        "sin": angles.sin().to(dtype),
        "slots": torch.tensor([5, 0, -1, 9, 2], device=device),
        "keys": torch.zeros(3, kv_heads, 4, dim, dtype=dtype, device=device),
        "values": torch.zeros(3, kv_heads, 4, value_dim, dtype=dtype, device=device),
    }


@FEW
@given(rotations())
def test_rotation_and_write(device, how):
    case = rotation_case(device, **how)
    qkv, kv_heads, dim = case["qkv"], how["kv_heads"], how["dim"]
    assert qkv is not None
    sizes = [kv_heads * how["group"] * dim, kv_heads * dim, kv_heads * how["value_dim"]]
    query, key, value = (
        part.unflatten(1, (-1, d)) for part, d in zip(qkv.split(sizes, 1), (dim, dim, how["value_dim"]), strict=True)
    )
    rope = Rope(how["rotary_dim"], how["interleaved"], how["angle_step"])
    expected = []
    for heads, weight in ((query, case["query_norm"]), (key, case["key_norm"])):
        normed = heads.double() if weight is None else Norm(dim, EPS, False, 1.0, weight, None).reference(heads)
        expected.append(normed if rope.rotary_dim == 0 else rope.reference(normed, case["cos"], case["sin"]))

    got = OPERATORS.rotate_and_write(*case.values(), rope.rotary_dim, rope.interleaved, rope.angle_step, EPS, 1.0)
    assert_near(got, expected[0])
    tokens, slots = [0, 1, 3, 4], [5, 0, 9, 2]
    by_slot = [case[name].transpose(1, 2).flatten(0, 1) for name in ("keys", "values")]
    assert_near(by_slot[0][slots], expected[1][tokens])
    assert torch.equal(by_slot[1][slots], value[tokens])
    untouched = [slot for slot in range(12) if slot not in slots]
    assert not any(written[untouched].any() for written in by_slot)


@pytest.mark.slow
def test_compilers_can_look_through_them(device):
    how = {"kv_heads": 2, "group": 2, "dim": 16, "value_dim": 8, "rotary_dim": 16, "angle_step": 1, "with_norm": True}
    case = rotation_case(device, **how, dtype=torch.float32)
    x, weight = (random(*shape, dtype=torch.float32, device=device) for shape in ((3, 40), (40,)))
    for operator, arguments in (
        (OPERATORS.norm, (x, weight, None, EPS, False, 0.0)),
        (OPERATORS.add_norm, (x, x + 1, weight, weight, EPS, True, 0.0)),
        (OPERATORS.activate, (x, 1, True)),
        (OPERATORS.activate, (x, 4, False)),
        (OPERATORS.rotate_and_write, (*case.values(), 16, False, 1, EPS, 0.0)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=("test_schema", "test_faketensor"))
    assert operations.norm(x, None, None, EPS, False, 0.0).shape == x.shape
