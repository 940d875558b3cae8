"""Opening the library: what the environment says, what is refused, and calls from several threads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from headrace.config.environment import CpuEnvironment, read_cpu_environment
from headrace.errors import ConfigError
from headrace.model.kernels.library import available_isas, open_kernels
from headrace.model.kernels.linear import PackedLinear
from headrace.observability import machine

built = pytest.mark.skipif(not available_isas(), reason="the CPU kernels were not built")


def test_environment_is_read_and_checked() -> None:
    """Empty is unset; threads are a positive number."""
    assert read_cpu_environment({}) == CpuEnvironment(None, None)
    both = {"HEADRACE_CPU_ISA": "avx2", "HEADRACE_CPU_THREADS": "3"}
    assert read_cpu_environment(both) == CpuEnvironment("avx2", 3)
    assert read_cpu_environment({"HEADRACE_CPU_ISA": "", "HEADRACE_CPU_THREADS": ""}) == CpuEnvironment(None, None)
    for wrong in ("0", "-1", "two"):
        with pytest.raises(ConfigError, match="HEADRACE_CPU_THREADS"):
            read_cpu_environment({"HEADRACE_CPU_THREADS": wrong})


@built
def test_environment_forces_the_instruction_set_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable path runs anywhere."""
    monkeypatch.setenv("HEADRACE_CPU_ISA", "portable")
    monkeypatch.setenv("HEADRACE_CPU_THREADS", "3")
    opened = open_kernels()
    assert (opened.isa, opened.num_threads) == ("portable", 3)
    best = available_isas()[0]
    assert open_kernels(best, 1).isa == best


@built
def test_an_instruction_set_that_does_not_run_is_refused() -> None:
    """With the names of those that do."""
    with pytest.raises(ConfigError, match=r"'altivec'.*portable"):
        open_kernels("altivec")


def test_a_missing_library_is_said(tmp_path: Path) -> None:
    """Nothing is available, and opening says why."""
    missing = tmp_path / "none.so"
    assert available_isas(missing) == ()
    with pytest.raises(ConfigError, match="compiler"):
        open_kernels(path=missing)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
@built
def test_one_processor_means_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `taskset`; the environment wins."""
    monkeypatch.delenv("HEADRACE_CPU_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert open_kernels().num_threads == 1
    monkeypatch.setenv("HEADRACE_CPU_THREADS", "2")
    assert open_kernels().num_threads == 2


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_taskset_bounds_the_threads() -> None:
    """The real one; of torch nothing is needed."""
    one = min(os.sched_getaffinity(0))
    code = (
        "from headrace.observability.machine import usable_cpus, usable_threads; print(usable_cpus(), usable_threads())"
    )
    command = ["taskset", "-c", str(one), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("cpu_max", "cores"), [("150000 100000", 1.5), ("50000 100000", 0.5), ("max 100000", 4), ("900000 100000", 4)]
)
def test_a_control_groups_share_of_time_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str, cores: float
) -> None:
    """Of four processors; a whole number of threads, at least one."""
    monkeypatch.setattr(machine, "usable_cpus", lambda: 4)
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert machine._usable_cores(tmp_path / "cpu.max") == cores
    monkeypatch.setattr(machine, "_usable_cores", lambda: cores)
    assert machine.usable_threads() == max(1, int(cores))


def test_threads_that_call_at_the_same_time_get_what_one_gets(open_isa) -> None:
    """One has the pool, the others run alone; the results are the same."""
    generator = torch.Generator().manual_seed(0)
    linear = PackedLinear.of(open_isa(2), torch.randn(256, 64, generator=generator))
    inputs = [torch.randn(7, 64, generator=generator) for _ in range(40)]
    expected = [linear(x) for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        for got, wanted in zip(threads.map(linear, inputs * 5), expected * 5, strict=True):
            assert torch.equal(got, wanted)
