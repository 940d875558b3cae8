"""Seconds from the command to the first token of the built-in model, each time in new processes.

python benchmarks/start.py [--times 5] [-- flags of headrace serve]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

_ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, as where a user starts it
_BODY = json.dumps({"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 1}).encode()


def first_token_s(flags: list[str]) -> tuple[float, float]:
    """Seconds until the server says that it is ready, and until an answer of one token is there."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "headrace.cli.main", "serve", "builtin", "--port", str(port), *flags]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=_ENVIRONMENT)
    try:
        _until_answered(f"http://127.0.0.1:{port}/health/ready", None, begin)
        ready = time.perf_counter() - begin
        _until_answered(f"http://127.0.0.1:{port}/v1/chat/completions", _BODY, begin)
        return ready, time.perf_counter() - begin
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _until_answered(url: str, body: bytes | None, begin: float) -> None:
    while time.perf_counter() - begin < 60:
        try:
            urllib.request.urlopen(urllib.request.Request(url, body), timeout=10).read()
            return
        except (urllib.error.HTTPError, OSError):
            time.sleep(0.01)
    raise SystemExit(f"{url} has not answered within 60 s")


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("flags", nargs="*")
    arguments = parser.parse_args()
    found = [first_token_s(arguments.flags) for _ in range(arguments.times)]
    print(json.dumps({"ready_s": [round(r, 2) for r, _ in found], "first_token_s": [round(t, 2) for _, t in found]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
