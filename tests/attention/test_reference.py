"""The reference against formulas over the whole sequence at once, without a cache."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from headrace.model.attention.interface import LayerSpec
from headrace.model.attention.reference import ReferenceAttention, visible_positions
from tests.attention.cases import FEATURES, make_case, make_layer


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None, layer: LayerSpec):
    """Textbook attention of one sequence: query [n, H, D], key [n, K, D], value [n, K, E] give [n, H, E]."""
    group = layer.num_heads // layer.num_kv_heads
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * layer.scale
    if layer.softcap:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    i, j = torch.arange(len(query))[:, None], torch.arange(len(query))
    allowed = j <= i
    if layer.window:
        allowed = allowed & (i - j < layer.window)
    if layer.chunk:
        allowed = allowed & (i // layer.chunk == j // layer.chunk)
    weights = scores.exp() * allowed
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[:, None, None]
    return torch.einsum("hqk,khe->qhe", weights / total, value)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_a_step_after_any_past_equals_the_formula_over_the_whole_sequence(features):
    layer = make_layer(**features)
    case = make_case(layer, rows=[(11, 1), (0, 1), (0, 9), (7, 6)])
    output = case.run(ReferenceAttention(), torch.float64)
    done = 0
    for (past, new), key, value in zip(case.rows, case.keys, case.values, strict=True):
        query = torch.zeros(past + new, layer.num_heads, layer.key_dim, dtype=torch.float64)
        query[past:] = case.query[done : done + new]
        expected = dense(query, key, value, case.sinks, layer)[past:]
        torch.testing.assert_close(output[done : done + new], expected, rtol=1e-12, atol=1e-12)
        done += new


def test_a_plain_prompt_equals_torch():
    case = make_case(make_layer(), rows=[(0, 13)])
    query, key, value = (t.transpose(0, 1)[None] for t in (case.query, case.keys[0], case.values[0]))
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
    torch.testing.assert_close(case.run(ReferenceAttention(), torch.float64), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("position", "features", "expected"),
    [
        (3, {}, [0, 1, 2, 3]),
        (3, {"window": 1}, [3]),
        (3, {"window": 2}, [2, 3]),
        (3, {"window": 9}, [0, 1, 2, 3]),
        (3, {"chunk": 4}, [0, 1, 2, 3]),
        (4, {"chunk": 4}, [4]),
        (6, {"chunk": 4}, [4, 5, 6]),
        (6, {"chunk": 4, "window": 2}, [5, 6]),
    ],
)
def test_what_a_query_sees(position, features, expected):
    assert visible_positions(position, make_layer(**features)) == expected
