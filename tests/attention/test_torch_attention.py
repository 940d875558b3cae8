"""The fast torch implementation against the reference, on layers and batches of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.attention import torch_chunks
from headrace.model.attention.reference import ReferenceAttention
from headrace.model.attention.torch_paged import TorchAttention
from tests.attention.cases import FEATURES, layers, make_case, make_layer, row_lengths

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
MIXED = [(37, 1), (0, 1), (3, 1), (0, 2), (0, 13), (0, 12), (20, 11), (9, 2), (16, 4)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_equals_reference(case, dtype):
    output = case.run(TorchAttention(), dtype)
    assert output.dtype == dtype
    assert output.is_contiguous()
    expected = case.run(ReferenceAttention(), torch.float64)
    torch.testing.assert_close(output.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@settings(max_examples=60, deadline=None)
@given(layers(), row_lengths(), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(0, 2**32))
def test_any_layer_and_any_batch(layer, rows, block_size, seed):
    assert_equals_reference(make_case(layer, rows, block_size, seed), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_every_feature_in_every_dtype(features, dtype):
    assert_equals_reference(make_case(make_layer(**features), MIXED, dtype=dtype), dtype)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_long_chunks_cut_into_pieces(features, monkeypatch):
    monkeypatch.setattr(torch_chunks, "MAX_PIECE_TOKENS", 3)
    assert_equals_reference(make_case(make_layer(**features), MIXED), torch.float64)


def test_a_piece_has_at_least_one_query_however_little_memory_there_is(monkeypatch):
    monkeypatch.setattr(torch_chunks, "MAX_SCORES", 1)
    assert_equals_reference(make_case(make_layer(softcap=2.0), MIXED), torch.float64)


def test_short_prompts_share_a_tile():
    case = make_case(make_layer(), rows=[(0, 2 + i % 7) for i in range(40)])
    assert len(torch_chunks.plan_chunks(case.batch(), case.layer)) <= 2


def test_whole_prompts_and_later_chunks_do_not_share_a_tile():
    case = make_case(make_layer(), rows=[(0, 5), (4, 5)])
    assert len(torch_chunks.plan_chunks(case.batch(), case.layer)) == 2


@pytest.mark.parametrize("features", [{"softcap": 2.0}, {"has_sinks": True}, {"value_dim": 64}], ids=str)
def test_a_tile_holds_no_more_scores_than_it_may(features, monkeypatch):
    monkeypatch.setattr(torch_chunks, "MAX_SCORES", 4 * 6 * 6 * 10)
    case = make_case(make_layer(num_heads=4, **features), rows=[(0, 6)] * 40)
    assert max(tile.num_pieces for tile in torch_chunks.plan_chunks(case.batch(), case.layer)) == 10


def test_whole_prompts_need_neither_mask_nor_cache():
    case = make_case(make_layer(window=20), rows=[(0, 20), (0, 19)])
    (tile,) = torch_chunks.plan_chunks(case.batch(), case.layer)
    assert tile.mask is None
    assert tile.blocks is None


def test_prompts_of_very_different_lengths_do_not_share_a_tile():
    case = make_case(make_layer(), rows=[(0, 20), (0, 900)])
    assert len(torch_chunks.plan_chunks(case.batch(), case.layer)) == 2


def test_sinks_far_above_and_below_every_score():
    for level in (-300.0, 300.0):
        case = make_case(make_layer(has_sinks=True), MIXED, dtype=torch.float32)
        case.sinks += level
        assert_equals_reference(case, torch.float32)


def test_a_window_gathers_only_its_own_blocks():
    layer = make_layer(window=4)
    decode = make_case(layer, rows=[(30, 1)], block_size=4)
    chunk = make_case(layer, rows=[(30, 2)], block_size=4)
    attention = TorchAttention()
    for case in (decode, chunk):
        batch = case.batch()
        attention.prepare(batch, [layer])
        (index,) = batch.prepared.values()
        if index.decodes is not None:
            assert len(index.decodes.hidden) == 2 * layer.num_heads
        for tile in index.tiles:
            assert len(tile.blocks) == 2


def test_layers_of_one_shape_share_what_prepare_builds():
    full, window = make_layer(), make_layer(index=1, window=4)
    batch = make_case(full, MIXED).batch()
    TorchAttention().prepare(batch, [full, window, make_layer(index=2), make_layer(index=3, window=4)])
    assert len(batch.prepared) == 2


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_forward_never_waits_for_the_device(features):
    """On the meta device whatever would read a value back raises."""
    layer = make_layer(**features)
    case = make_case(layer, MIXED)
    batch = case.batch(device="meta")
    attention = TorchAttention()
    attention.prepare(batch, [layer])
    cache = attention.allocate(layer, case.num_blocks, case.block_size, torch.float32, torch.device("meta"))
    inputs = [t.to("meta", torch.float32) for t in (case.query, *map(case.new_tokens, (case.keys, case.values)))]
    sinks = None if case.sinks is None else case.sinks.to("meta")
    output = attention.forward(*inputs, sinks, layer, cache, batch)
    assert output.shape == (sum(batch.query_lens), layer.num_heads, layer.value_dim)
