"""The Triton attention against the float64 reference: every feature, dtype, cut of the context and kind of batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.attention.interface import AttentionBatch, LayerSpec
from headrace.model.attention.reference import ReferenceAttention
from headrace.model.attention.triton_paged import TritonAttention
from headrace.model.triton_kernels.launch_plan import BatchShape, LaunchPlan, Tile, plan_launch
from tests.attention.cases import FEATURES, Case, layers, make_case, make_layer, row_lengths

TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
DTYPES = list(TOLERANCE)
MIXED = [(70, 1), (0, 1), (17, 1), (0, 2), (0, 19), (20, 11)]
SICK = [(37, 1), (6, 1), (0, 5), (20, 6)]


def small_plan(layer: LayerSpec, shape: BatchShape, itemsize: int, num_sms: int) -> LaunchPlan:
    """Tiles so small that short contexts have several, and several splits."""
    group = layer.num_heads // layer.num_kv_heads
    tiles = (Tile(16, 16, 4, 1), Tile(16 if group <= 16 else 64, 16, 4, 1))
    return replace(plan_launch(layer, shape, itemsize, num_sms, tiles), num_splits=4, min_split_tokens=16)


def unsplit(layer: LayerSpec, shape: BatchShape, itemsize: int, num_sms: int) -> LaunchPlan:
    """One program for a context, as large batches have it."""
    return replace(small_plan(layer, shape, itemsize, num_sms), num_splits=1)


def assert_equals_reference(case: Case, dtype: torch.dtype, device: str, *attentions: TritonAttention) -> None:
    expected = case.run(ReferenceAttention(), torch.float64)
    for attention in attentions or (TritonAttention(small_plan),):
        output = case.run(attention, dtype, device)
        assert output.dtype == dtype
        assert output.is_contiguous()
        torch.testing.assert_close(output.cpu().double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


QUICK = ("window", "softcap", "sinks and window", "narrow values")


@pytest.mark.parametrize("features", [FEATURES[name] for name in QUICK], ids=QUICK)
def test_features(features, device):
    assert_equals_reference(make_case(make_layer(**features), SICK, dtype=torch.float32), torch.float32, device)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_every_feature_in_every_dtype_and_by_the_rule(features, dtype, device):
    case = make_case(make_layer(**features), MIXED, dtype=dtype)
    assert_equals_reference(
        case, dtype, device, TritonAttention(), TritonAttention(small_plan), TritonAttention(unsplit)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype, device):
    case = make_case(make_layer(), [(37, 1), (20, 6)], dtype=dtype)
    assert_equals_reference(case, dtype, device, TritonAttention())


@pytest.mark.slow
@settings(max_examples=60)
@given(layers(), row_lengths(), st.sampled_from([1, 4, 16, 32]), st.integers(0, 2**32), st.sampled_from(DTYPES))
def test_any_layer_and_any_batch(device, layer, rows, block_size, seed, dtype):
    case = make_case(layer, rows, block_size, seed, dtype)
    assert_equals_reference(case, dtype, device, TritonAttention(small_plan), TritonAttention(unsplit))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [32, 40, 48, 64, 72, 80, 96, 112, 128, 160, 192, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_head_size(dim, dtype, device):
    assert_equals_reference(make_case(make_layer(key_dim=dim), MIXED, dtype=dtype), dtype, device, TritonAttention())


@pytest.mark.slow
@pytest.mark.parametrize("group", [7, 71])
def test_groups_that_fill_no_tile(group, device):
    case = make_case(make_layer(num_heads=group, num_kv_heads=1), SICK, dtype=torch.float32)
    assert_equals_reference(case, torch.float32, device, TritonAttention())


@pytest.mark.slow
def test_a_context_longer_than_all_splits_together_were_planned_for(device):
    case = make_case(make_layer(num_heads=1, num_kv_heads=1), [(299, 1), (3, 1)], block_size=16, dtype=torch.float32)
    assert_equals_reference(case, torch.float32, device, TritonAttention(small_plan), TritonAttention())


@pytest.mark.slow
def test_sinks_far_above_and_below_every_score(device):
    for level in (-300.0, 300.0):
        case = make_case(make_layer(has_sinks=True), [(37, 1), (0, 5)], dtype=torch.float32)
        case.sinks += level
        assert_equals_reference(case, torch.float32, device)


@pytest.mark.slow
@pytest.mark.parametrize("sick", range(len(SICK)))
def test_nan_in_one_row_leaves_the_others_bit_identical(sick, device):
    case = make_case(make_layer(has_sinks=True, window=9), SICK)
    healthy = case.run(TritonAttention(small_plan), torch.float32, device)
    begin = sum(new for _, new in SICK[:sick])
    of_sick = slice(begin, begin + SICK[sick][1])
    case.query[of_sick] = torch.nan
    case.keys[sick][:] = torch.nan
    case.values[sick][:] = torch.nan
    output = case.run(TritonAttention(small_plan), torch.float32, device)
    assert output[of_sick].isnan().all()
    others = torch.ones(len(output), dtype=torch.bool)
    others[of_sick] = False
    assert torch.equal(output[others], healthy[others])


def test_a_cache_of_another_dtype(device):
    case = make_case(make_layer(), SICK, dtype=torch.bfloat16)
    output = case.run(TritonAttention(), torch.float32, device, cache_dtype=torch.bfloat16)
    torch.testing.assert_close(
        output.cpu().double(), case.run(ReferenceAttention(), torch.float64), rtol=2e-5, atol=2e-5
    )


def padded(batch: AttentionBatch, num_rows: int) -> AttentionBatch:
    """A batch of decodes with rows of padding, as for a captured graph; lengths of contexts on the device alone."""
    more = num_rows - batch.num_decodes

    def fill(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return torch.cat([tensor, tensor.new_full((more, *tensor.shape[1:]), value)])

    return replace(
        batch,
        query_lens=[1] * num_rows,
        context_lens=[2048] * num_rows,
        num_decodes=num_rows,
        query_start=torch.arange(num_rows + 1, dtype=torch.int32, device=batch.query_start.device),
        context_len=fill(batch.context_len, 0),
        slot_mapping=fill(batch.slot_mapping, -1),
        block_table=fill(batch.block_table, 0),
    )


@pytest.mark.parametrize("planner", [small_plan, pytest.param(unsplit, marks=pytest.mark.slow)])
def test_rows_of_padding_read_and_write_nothing_and_give_zeros(planner, device):
    case = make_case(make_layer(window=40), [(70, 1), (5, 1)])
    attention = TritonAttention(planner)
    expected = case.run(attention, torch.float32, device)
    cache, batch = case.cache(attention, torch.float32, device), padded(case.batch(device), 4)
    before = cache.keys[0].clone()  # block 0, NaN
    inputs = [
        t.to(device, torch.float32) for t in (case.query, case.new_tokens(case.keys), case.new_tokens(case.values))
    ]
    inputs = [torch.cat([tensor, torch.full_like(tensor, torch.nan)]) for tensor in inputs]
    output = attention.forward(*inputs, None, case.layer, cache, batch)
    assert torch.equal(output[:2], expected)
    assert not output[2:].any()
    assert torch.equal(cache.keys[0].isnan(), before.isnan())


def test_batches_that_differ_in_contexts_alone_share_a_graph(device):
    attention = TritonAttention()
    short, long = (make_case(make_layer(), rows).batch(device) for rows in ([(9, 1), (8, 1)], [(10, 1), (3, 1)]))
    assert attention.graph_values(short) == attention.graph_values(long)
    assert hash(attention.graph_values(short)) == hash(attention.graph_values(long))
    more = make_case(make_layer(), [(9, 1), (8, 1), (1, 1)]).batch(device)
    assert attention.graph_values(short) != attention.graph_values(more)
    longer_table = make_case(make_layer(), [(90, 1), (8, 1)]).batch(device)
    assert attention.graph_values(short) != attention.graph_values(longer_table)


def test_what_it_does_not_serve_is_refused_by_name(device):
    attention, place = TritonAttention(), torch.device(device)
    assert attention.refusal([make_layer()], torch.float16, place) is None
    assert "float64" in attention.refusal([make_layer()], torch.float64, place)
    assert "up to 256, not 320" in attention.refusal([make_layer(value_dim=320)], torch.float32, place)
    assert "mps" in attention.refusal([make_layer()], torch.float32, torch.device("mps"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_captured_graph_serves_every_context():
    layer, attention = make_layer(num_heads=8, key_dim=128), TritonAttention()
    cases = [make_case(layer, rows, 16, dtype=torch.float32) for rows in ([(900, 1), (8, 1)], [(12, 1), (700, 1)])]
    cache = attention.allocate(layer, 256, 16, torch.float32, torch.device("cuda"))
    batch = padded(cases[0].batch("cuda"), 2)
    batch.block_table = torch.zeros(2, 64, dtype=torch.int32, device="cuda")
    inputs = [torch.empty(2, heads, 128, device="cuda") for heads in (8, 2, 2)]
    for _ in range(2):  # compiles outside of the capture
        attention.forward(*inputs, None, layer, cache, batch)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = attention.forward(*inputs, None, layer, cache, batch)
    for case in cases:
        filled, now = case.cache(attention, torch.float32, "cuda"), case.batch("cuda")
        cache.keys[: case.num_blocks], cache.values[: case.num_blocks] = filled.keys, filled.values
        batch.block_table[:, : now.block_table.shape[1]] = now.block_table
        batch.context_len.copy_(now.context_len)
        batch.slot_mapping.copy_(now.slot_mapping)
        step = (case.query, case.new_tokens(case.keys), case.new_tokens(case.values))
        for tensor, value in zip(inputs, step, strict=True):
            tensor.copy_(value)
        graph.replay()
        torch.testing.assert_close(output, case.run(attention, torch.float32, "cuda"))
