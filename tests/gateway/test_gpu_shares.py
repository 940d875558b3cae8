"""Which GPU a replica gets, of a machine that is made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.gpu_shares import GpuShares
from headrace.config.environment import visible_gpus


def test_gpus_are_those_that_cuda_may_open(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "1")
    assert visible_gpus({}, tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("2,0", ("2", "0")),
        (" GPU-8f3a , MIG-1c ", ("GPU-8f3a", "MIG-1c")),
        ("", ()),
        ("-1", ()),
        ("1,-1,0", ("1",)),
        ("NoDevFiles", ("NoDevFiles",)),
    ],
)
def test_gpus_are_those_that_the_environment_shows(given: str, gpus: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": given}, tmp_path) == gpus


def test_each_replica_has_its_own_and_keeps_it() -> None:
    shares = GpuShares(("4", "6"), "auto")
    assert [shares.take(f"r{i}", [f"r{j}" for j in range(i)]) for i in range(5)] == ["4", "6", "4", "6", "4"]
    assert shares.take("r1", ["r0", "r2"]) == "6"


def test_what_a_replica_that_is_gone_had_is_free() -> None:
    shares = GpuShares(("0", "1"), "cuda")
    assert (shares.take("r0", []), shares.take("r1", ["r0"])) == ("0", "1")
    assert shares.take("r2", ["r1"]) == "0"  # r0 was taken away
    assert shares.take("r0", ["r1", "r2"]) == "0"


@pytest.mark.parametrize(("gpus", "device"), [((), "auto"), (("0", "1"), "cpu"), (("0", "1"), "cuda:1")])
def test_without_gpus_or_with_a_device_that_is_named_nothing_is_shared(gpus: tuple[str, ...], device: str) -> None:
    assert GpuShares(gpus, device).take("r0", []) is None


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_no_gpu_has_two_more_than_another_when_one_is_given(num_gpus: int, events: list[tuple[int, bool]]) -> None:
    shares, living = GpuShares([str(i) for i in range(num_gpus)], "auto"), {}
    for number, comes in events:
        if not comes:
            living.pop(number, None)
            continue
        others = [n for n in living if n != number]
        gpu = shares.take(f"r{number}", [f"r{n}" for n in others])
        held = [sum(living[n] == str(i) for n in others) for i in range(num_gpus)]
        assert held[int(gpu or "")] == min(held)
        living[number] = gpu
