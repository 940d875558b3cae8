"""The random numbers: known answers, uniformity, independence; and the exact inversion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.engine.runner.draws import draw, fixed_point, philox4x32, uniforms

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, the authors' implementation
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]) -> None:
    words = philox4x32(np.array([counter] * 3, dtype=np.uint64).T, np.array([key] * 3, dtype=np.uint64).T)
    assert words.T.tolist() == [list(expected)] * 3


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """Standard deviations above what chance gives, by the normal approximation."""
    statistic = float(((observed - expected) ** 2 / expected).sum())
    freedom = observed.size - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


N = 40_000
STREAMS = {
    "positions of one seed": ([7] * N, range(N)),
    "seeds at one position": (range(N), [3] * N),
    "seed and position together": (range(N), range(N)),
    "high bits of the seed": ([i << 40 for i in range(N)], [0] * N),
    "position 2**32 and beyond": ([7] * N, range(2**32, 2**32 + N)),
}


@pytest.mark.parametrize("name", STREAMS)
def test_uniform_and_independent(name: str) -> None:
    numbers = uniforms(*STREAMS[name])
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    cells = np.floor(numbers * 100).astype(int)
    assert abs(chi_square(np.bincount(cells, minlength=100), np.full(100, N / 100))) < 4
    for lag in (1, 2, 64):  # pairs fill the square
        pairs = np.floor(numbers[:-lag] * 10).astype(int) * 10 + np.floor(numbers[lag:] * 10).astype(int)
        assert abs(chi_square(np.bincount(pairs, minlength=100), np.full(100, (N - lag) / 100))) < 4


def test_streams_do_not_meet() -> None:
    """Seed s + 1 at position p is not seed s at position p + 1, and every 64 bits count."""
    grid = uniforms([s for s in range(100) for _ in range(100)], list(range(100)) * 100)
    assert len(set(grid.tolist())) == 10_000
    assert len(set(uniforms([0, 2**32, 2**63, 2**64 - 1], [5] * 4).tolist())) == 4


def test_draw_steps_over_weights_of_zero() -> None:
    weights = torch.tensor([[0, 3, 0, 1, 0]] * 5)
    at = torch.tensor([[0.0], [0.7499999], [0.75], [1 - 2.0**-53], [0.375]], dtype=torch.float64)
    index, within = draw(weights * 2**40, at)
    assert index[:, 0].tolist() == [1, 1, 3, 3, 1]
    assert within[:, 0].tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0, 0.5], abs=1e-6)
    assert float(within.max()) < 1.0


def test_draw_from_weights_that_are_no_numbers_gives_an_index() -> None:
    weights = fixed_point(torch.full((1, 7), float("nan")))
    index, _ = draw(weights, torch.tensor([[0.5]], dtype=torch.float64))
    assert 0 <= int(index) < 7
