"""Freed memory is kept, which the system's count of page faults shows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from headrace.gateway.freed_memory import keep_freed_memory

_PROGRAM = """
import resource, sys
from headrace.gateway.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    parts = [bytes(100_000) for _ in range(20)]  # shorter than what has pages of its own by default
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def num_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no such setting")
def test_memory_that_was_freed_is_used_again_without_the_system() -> None:
    assert num_faults("kept") < num_faults("as it is") / 10
