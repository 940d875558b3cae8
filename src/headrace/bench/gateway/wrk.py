"""Load by wrk, which costs little beside a gateway: requests as fast as they are answered, on so many connections."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import BenchmarkFailed, ConfigError

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_TARGET = "/v1/chat/completions"

_SAME = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]
"""

_LONG = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local requests, turn = {{}}, 0
init = function(args)
  for i = 1, {count} do
    local text = string.rep("the quick brown fox " .. i .. " ", {repeats})
    requests[i] = wrk.format(nil, nil, nil,
      '{{"model":"m","messages":[{{"role":"user","content":"' .. text .. '"}}]}}')
  end
end
request = function()
  turn = turn % {count} + 1
  return requests[turn]
end
"""

_DISTINCT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local turn, tail = 0, string.rep("some words ", 50) .. '"}}]}}'
init = function(args) turn = tonumber(args[1]) end
request = function()
  turn = turn + 1
  return wrk.format(nil, nil, nil, '{{"model":"m","messages":[{{"role":"user","content":"' .. turn .. tail)
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw.

    Attributes: num_errors: answers other than 2xx and broken connections.
    """

    num_requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    num_errors: int


def same(folder: Path, name: str, body: str) -> Path:
    """A script that sends one body."""
    return _script(folder, name, _SAME.format(body=body))


def long(folder: Path, name: str, count: int, num_bytes: int) -> Path:
    """A script that sends so many prompts of about so many bytes in turn."""
    return _script(folder, name, _LONG.format(count=count, repeats=num_bytes // 22))


def distinct(folder: Path, name: str) -> Path:
    """A script that never sends the same prompt twice; two blocks of the prefix index each."""
    return _script(folder, name, _DISTINCT.format())


def _script(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.lua"
    path.write_text(text)
    return path


def run(port: int, script: Path, num_connections: int, seconds: float, core: int, *arguments: str) -> Load:
    """Put load on a port of this machine. Raises BenchmarkFailed, and ConfigError when wrk is not installed."""
    program = shutil.which("wrk")
    if program is None:
        raise ConfigError("wrk is not installed; Debian and Ubuntu have it: apt-get install wrk")
    argv = [
        "taskset", "-c", str(core), program, "-t1", f"-c{num_connections}", f"-d{max(round(seconds), 1)}s", "--latency",
        "--timeout", "10s", "-s", str(script), f"http://127.0.0.1:{port}{_TARGET}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, check=False)
    count = re.search(r"(\d+) requests in", done.stdout)
    per_s = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if count is None or per_s is None or count[1] == "0":
        raise BenchmarkFailed(f"wrk got no answer from port {port}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return Load(
        int(count[1]), float(per_s[1]), _percentile_ms(done.stdout, 50), _percentile_ms(done.stdout, 99),
        _errors(done.stdout),
    )  # fmt: skip


def _percentile_ms(text: str, percent: int) -> float:
    found = re.search(rf"\n\s+{percent}%\s+([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * _UNITS_MS[found[2]] if found else float("nan")


def _errors(text: str) -> int:
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return (int(bad[1]) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
