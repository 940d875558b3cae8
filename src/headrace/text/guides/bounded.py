"""Runs a piece of native work with room on the stack, and not for longer than a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from headrace.errors import GuideTimeout

_T = TypeVar("_T")

STACK_BYTES = 256 * 2**20
"""Address space, not memory. Compiling takes about 1.8 kB of stack for each rule that refers to the next, and a guide's
text has room for 40,000 of them; on the usual 8 MB, 4,500 take the process down."""

_MAX_AT_ONCE = 8
_places = threading.BoundedSemaphore(_MAX_AT_ONCE)  # of the process, like the threads that it counts
_starting = threading.Lock()


def start_roomy(thread: threading.Thread) -> None:
    """Start a thread with a stack of STACK_BYTES."""
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)


def run_bounded(work: Callable[[], _T], timeout_s: float) -> _T:
    """The result of `work`, run in a thread of its own; what it raises is raised here.

    Native code cannot be stopped: work that is given up runs on, until llguidance's own limits end it. A few pieces may
    do so at a time; then new ones are refused.

    Raises:
        GuideTimeout: it took longer than `timeout_s`, or waited so long for a place.
    """
    if not _places.acquire(timeout=timeout_s):
        raise GuideTimeout(f"{_MAX_AT_ONCE} guides are being compiled, and none was ready within {timeout_s:g} s")
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # a panic in native code too
            errors.append(error)
        finally:
            _places.release()

    thread = threading.Thread(target=run, name="headrace-guide-work", daemon=True)
    try:
        start_roomy(thread)
    except BaseException:
        _places.release()
        raise
    thread.join(timeout_s)
    if thread.is_alive():
        raise GuideTimeout(f"the guide was not compiled within {timeout_s:g} s: make its schema or grammar smaller")
    if errors:
        raise errors[0]
    return results[0]
