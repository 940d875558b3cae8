"""All kernel tests again, on a build with AddressSanitizer and UndefinedBehaviorSanitizer.

The build also emulates AVX512-BF16's dot product, so that its layout and code are tested where AVX512 runs without it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.model.kernels.library import available_isas

ROOT = Path(__file__).parents[2]


def build_script() -> ModuleType:
    """hatch_build.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_kernels_under_sanitizers(tmp_path: Path) -> None:
    """No bad access, no undefined behaviour, and the same results."""
    pytest.importorskip("hatchling")
    build = build_script()
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path / "libheadrace.so"
    sanitizers = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
    emulation = ("-DHR_EMULATE_DPBF16",) if "avx512vnni" in available_isas() else ()
    build.compile_library(compiler, library, (*sanitizers, *emulation))
    runtime = subprocess.run(
        [*compiler.split(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), f"--kernel-library={library}"]
    command += ["-q", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
