"""The portable kernels on aarch64: compiled without a warning, and right where its programs can be run."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = platform.machine() == "aarch64"
COMPILER = shutil.which("g++") if NATIVE else shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no compiler for aarch64 (Debian: g++-aarch64-linux-gnu)")
def test_a_small_case(tmp_path: Path) -> None:
    assert COMPILER is not None
    sources = [*sorted((ROOT / "csrc").glob("*.cpp")), ROOT / "csrc/isa/portable.cpp"]
    program = tmp_path / "small_case"
    flags = ("-std=c++17", "-O2", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", "-static", "-pthread")
    subprocess.run([COMPILER, *flags, *sources, "-c"], cwd=tmp_path, check=True)
    case = Path(__file__).with_name("small_case.cpp")
    objects = sorted(tmp_path.glob("*.o"))
    command = [COMPILER, "-std=c++17", "-O1", "-static", "-pthread", f"-I{ROOT / 'csrc'}", case, *objects]
    subprocess.run([*command, "-o", program], check=True)
    if not NATIVE and EMULATOR is None:
        pytest.skip("compiled; nothing here runs it (Debian: qemu-user-static)")
    run = [str(program)] if NATIVE else [str(EMULATOR), str(program)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
