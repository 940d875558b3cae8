"""The engine process: `python -m headrace.engine.remote.child FD PARENT_PID`, started by EngineProcess alone.

It ends when told to, when its engine dies, and with its parent. Interrupts and terminations are the parent's to handle:
a terminal or a service manager sends them to both, and the parent lets the child finish what runs.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

import msgspec

from headrace.engine.garbage import collections_paused, leave_out_of_collections
from headrace.engine.remote.building import BuiltEngine, build
from headrace.engine.remote.child_connection import ChildConnection
from headrace.engine.remote.lifeline import die_with_parent
from headrace.engine.remote.log_lines import ChildFormatter
from headrace.engine.remote.service import serve
from headrace.engine.remote.spec import EngineSpec

_spec_decoder = msgspec.msgpack.Decoder(EngineSpec)


def main(arguments: Sequence[str], builder: Callable[[EngineSpec], BuiltEngine] = build) -> int:
    """Serve the parent that gave its pid and the descriptor of the connection; returns the exit status."""
    descriptor, parent_pid = int(arguments[0]), int(arguments[1])
    die_with_parent(parent_pid)
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)

    def build_sent(payload: bytes) -> BuiltEngine:
        spec = _spec_decoder.decode(payload)
        _set_up_logs(spec.log_level)
        with collections_paused():
            built = builder(spec)
        leave_out_of_collections()
        return built

    return serve(ChildConnection(socket.socket(fileno=descriptor)), build_sent)


def _set_up_logs(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ChildFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # daemon threads of native libraries have taken down an interpreter that went away in its own time
