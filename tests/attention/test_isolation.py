"""What one row holds, NaN included, never reaches another row; zeroed blocks forget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from headrace.model.attention import registry
from tests.attention.cases import FEATURES, make_case, make_layer, served_on_the_cpu

ROWS = [(37, 1), (6, 1), (3, 1), (0, 5), (0, 6), (20, 5), (21, 5)]


@pytest.mark.parametrize("sick", range(len(ROWS)))
@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_nan_in_one_row_leaves_the_others_bit_identical(features, sick):
    attention = registry.get("torch")
    case = make_case(make_layer(**features), ROWS)
    healthy = case.run(attention, torch.float32)
    begin = sum(new for _, new in ROWS[:sick])
    of_sick = slice(begin, begin + ROWS[sick][1])
    case.query[of_sick] = torch.nan
    case.keys[sick][:] = torch.nan
    case.values[sick][:] = torch.nan
    output = case.run(attention, torch.float32)
    assert output[of_sick].isnan().all()
    others = torch.ones(len(output), dtype=torch.bool)
    others[of_sick] = False
    assert torch.equal(output[others], healthy[others])


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_a_decode_is_the_same_bit_for_bit_alone_and_in_a_batch(features):
    case = make_case(make_layer(**features), ROWS)
    together = case.run(registry.get("torch"), torch.float32)
    for row in (0, 1, 2):
        alone = replace(
            case,
            rows=ROWS[row : row + 1],
            tables=case.tables[row : row + 1],
            query=case.query[row : row + 1],
            keys=case.keys[row : row + 1],
            values=case.values[row : row + 1],
        )
        assert torch.equal(alone.run(registry.get("torch"), torch.float32)[0], together[row])


@pytest.mark.parametrize("name", served_on_the_cpu())
def test_a_row_may_own_block_0_that_others_are_padded_with(name):
    """The runner pads tables with 0; here block 0 is a sick row's, and its NaN is written in this very step."""
    case = make_case(make_layer(window=5), ROWS)
    healthy = case.run(registry.get(name), torch.float32)
    case.tables[0][-1] = 0
    case.keys[0][-1] = case.values[0][-1] = torch.nan
    output = case.run(registry.get(name), torch.float32)
    assert output[0].isnan().all()
    assert torch.equal(output[1:], healthy[1:])


@pytest.mark.parametrize("name", served_on_the_cpu())
def test_zeroed_blocks_hold_zeros_and_the_others_are_kept(name):
    attention = registry.get(name)
    case = make_case(make_layer(), rows=[(11, 1)], block_size=4)
    cache = case.cache(attention, torch.float32)
    attention.zero_blocks(cache, torch.tensor(case.tables[0][:2]))
    case.keys[0][:8] = case.values[0][:8] = 0
    expected = case.run(attention, torch.float32)

    batch = case.batch()
    attention.prepare(batch, [case.layer])
    inputs = [t.float() for t in (case.query, case.new_tokens(case.keys), case.new_tokens(case.values))]
    assert torch.equal(attention.forward(*inputs, None, case.layer, cache, batch), expected)
