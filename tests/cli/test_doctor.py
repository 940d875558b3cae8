"""`headrace doctor`: what it says of the machine, and of models that run and that do not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.observability import machine


def test_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["packages"]["torch"]
    assert report["cpu"]["num_cores"] == os.cpu_count()
    assert report["would_run"]["attention"] in report["would_run"]["attention_available"]
    assert report["devices"][-1]["name"] == "cpu"
    assert report["devices"][-1]["available_bytes"] > 0
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "instruction sets:" in text
    assert "GiB" in text


def test_settings_are_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--attention", "nonsense"]) == 1
    assert "attn_implementation='nonsense' is not one of" in capsys.readouterr().out


def test_a_model_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["model"]["refused"]


FILES = {
    "/proc/cpuinfo": "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n\nmodel name\t: Another\n",
    "/proc/meminfo": "MemTotal:       16 kB\nMemAvailable:    8 kB\n",
}


@pytest.mark.parametrize(
    ("cgroup", "limit_bytes", "cores"),
    [
        ({"/sys/fs/cgroup/memory.max": "4096\n", "/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 4096, 0.5),
        ({"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"}, None, None),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "8192"}, 8192, None),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None, None),
    ],
)
def test_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, cgroup: dict[str, str], limit_bytes: int | None, cores: float | None
) -> None:
    files = FILES | cgroup
    monkeypatch.setattr(machine, "_read", lambda path: files.get(str(path), "").strip() or None)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    cpu, memory = machine.cpu(), machine.memory()
    assert cpu["model"] == "Some CPU"
    assert cpu["instruction_sets"] == {"avx2": True, "avx512": True, "vnni": False, "bf16": False, "amx": False}
    assert memory == {"total_bytes": 16384, "available_bytes": 8192, "cgroup_limit_bytes": limit_bytes}
    assert cpu["num_usable_cores"] == (cores or len(os.sched_getaffinity(0)))


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: None)
    assert machine.cpu()["instruction_sets"] is None
    assert set(machine.memory().values()) == {None}
