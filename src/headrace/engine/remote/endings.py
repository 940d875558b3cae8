"""Why a child process ended, in words."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from headrace.engine.remote.errors_on_wire import RemoteCause
from headrace.errors import EngineDead

_HINTS = {
    signal.SIGKILL: "by the system when memory ran short, or by hand; the system's log tells",
    signal.SIGSEGV: "it crashed in native code",
    signal.SIGBUS: "it crashed in native code, or shared memory ran short",
    signal.SIGILL: "it crashed in native code: an instruction that this processor does not have",
    signal.SIGABRT: "native code gave up",
    signal.SIGFPE: "it crashed in native code",
}


def silent_death(status: int | None, last_lines: Sequence[str]) -> EngineDead:
    """The error of a process that ended without last words.

    Args:
        status: as Popen.returncode: negative for a signal; None: it closed its connection and did not end.
        last_lines: of what it printed: a crash in native code prints every thread's stack.
    """
    if status is None:
        words = "the engine process closed its connection without a word"
    elif status < 0:
        words = f"the engine process was killed by {_name(-status)}"
        hint = _HINTS.get(-status)  # type: ignore[call-overload]
        words += f" ({hint})" if hint else ""
    else:
        words = f"the engine process ended with status {status} without a word"
    error = EngineDead(words)
    if last_lines:
        error.__cause__ = RemoteCause("it printed: " + "\n".join(last_lines), None)
    return error


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
