"""Builds the CPU kernels (csrc/) into the package: the wheel's build hook, and a script for a checkout.

One compiler call per instruction set, side by side, then a link. No compiler, or one that fails: the wheel is pure
Python and attention runs through torch. `python hatch_build.py` builds in place.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ROOT / "csrc"
LIBRARY = ROOT / "src/headrace/model/kernels/libheadrace.so"

FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-Wall", "-Wextra"),
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),  # GCC 12 warns of its own intrinsics' undefined operands
)

AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma")
X86_VARIANTS = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512": AVX512,
    "avx512vnni": (*AVX512, "-mavx512vnni"),
    "avx512bf16": (*AVX512, "-mavx512vnni", "-mavx512bf16"),
}


class CompileError(RuntimeError):
    """The compiler refused; the message is its own."""


def find_compiler() -> str | None:
    """The C++ compiler that the environment names, or the first that the system has."""
    named = os.environ.get("CXX")
    return named or next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)


def run(command: Sequence[str | Path]) -> None:
    """Run one compiler call; raises CompileError with what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr or done.stdout)


def accepts(compiler: str, flags: Iterable[str]) -> bool:
    """Whether the compiler knows the flags."""
    command = [*compiler.split(), *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def compile_library(compiler: str, output: Path, extra_flags: Sequence[str] = ()) -> None:
    """Compile csrc/ to `output`, with every instruction set that the compiler knows; raises CompileError."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    variants = {name: flags for name, flags in X86_VARIANTS.items() if is_x86 and accepts(compiler, flags)}
    known = tuple(f"-DHR_WITH_{name.upper()}" for name in variants)
    sources: list[tuple[Path, tuple[str, ...]]] = [(SOURCES / "isa/portable.cpp", ())]
    sources += [(SOURCES / "isa" / f"{name}.cpp", flags) for name, flags in variants.items()]
    sources += [(source, known) for source in sorted(SOURCES.glob("*.cpp"))]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = [Path(folder) / f"{number}.o" for number in range(len(sources))]
        calls = [
            [*compiler.split(), *FLAGS, *extra_flags, *flags, "-c", source, "-o", target]
            for (source, flags), target in zip(sources, objects, strict=True)
        ]
        list(threads.map(run, calls))
        finished = Path(folder) / output.name
        run([*compiler.split(), "-shared", "-pthread", *extra_flags, *objects, "-o", finished])
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(finished, output.with_suffix(".new"))
        output.with_suffix(".new").replace(output)  # a process that has the old one loaded keeps it


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the library in the wheel and names the wheel after the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; say what is missing where that fails, and go on without."""
        if self.target_name != "wheel":
            return
        compiler = find_compiler()
        if compiler is None:
            self.app.display_warning("no C++ compiler: headrace is built without its CPU kernels")
            return
        try:
            compile_library(compiler, LIBRARY)
        except (CompileError, OSError) as error:
            self.app.display_warning(f"headrace is built without its CPU kernels, which did not compile:\n{error}")
            return
        build_data["artifacts"].append(f"/{LIBRARY.relative_to(ROOT)}")
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def main() -> int:
    """Build in place, for a checkout that is not installed."""
    compiler = find_compiler()
    if compiler is None:
        print("no C++ compiler found; set CXX", file=sys.stderr)
        return 1
    compile_library(compiler, LIBRARY)
    print(f"built {LIBRARY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
