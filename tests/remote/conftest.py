"""No test leaves a process, a descriptor or a thread behind."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def _descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def _children() -> set[str]:
    tasks = Path("/proc/self/task")
    found: set[str] = set()
    for task in tasks.iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            found.update((task / "children").read_text().split())
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails a test after which there is more than before."""
    before = len(_descriptors()), _children(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while True:
        open_now, children = _descriptors(), _children() - before[1]
        threads = [
            t.name for t in threading.enumerate() if t not in before[2] and t.name.startswith(("head", "engine"))
        ]
        if len(open_now) <= before[0] and not children and not threads:
            return
        assert time.monotonic() < deadline, f"left: {open_now}, processes {children}, threads {threads}"
        time.sleep(0.02)
