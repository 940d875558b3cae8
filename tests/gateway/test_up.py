"""`headrace up`, `headrace gateway` and `headrace fleet` as commands, with real servers over a cost model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.config.environment import child_environment
from headrace.protocol.json_call import call_json
from headrace.server.keys import new_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SIMULATED = ["--simulated", "step_s=0.004"]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "HEADRACE_CPU_THREADS": "1"}


class Command:
    """A command that says where it serves."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "headrace.cli.main", *arguments]
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=QUIET)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def url(self) -> str:
        found: list[str] = []

        def serves() -> bool:
            assert self.process.poll() is None, "\n".join(self.lines)
            found[:] = [m.group(1) for line in self.lines if (m := re.fullmatch(r"headrace: .* at (http\S+)", line))]
            return bool(found)

        until(serves, 120)
        return found[0]

    def fleet(self, **options: Any) -> dict[str, dict[str, Any]]:
        answer = call_json("GET", f"{self.url}/admin/fleet", **options)
        return {replica["name"]: replica for replica in answer.body["replicas"]}

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running(*arguments: str) -> Iterator[Command]:
    command = Command(*arguments)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.wait()


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come to be"
        time.sleep(0.05)


def complete(url: str, api_key: str | None = None, **fields: Any) -> tuple[int, Any]:
    body = {"model": "builtin", "prompt": "one two three", "max_tokens": 20, **fields}
    return tuple(call_json("POST", f"{url}/v1/completions", body, api_key, 60.0))  # type: ignore[return-value]


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_up_keeps_replicas_alive_and_ends_them() -> None:
    with running("up", "builtin", "--replicas", "2", "--port", "0", *SIMULATED) as up:
        assert complete(up.url)[0] == 200
        fleet = up.fleet()
        assert {name: replica["condition"] for name, replica in fleet.items()} == {
            "replica-0": "ready", "replica-1": "ready",
        }  # fmt: skip
        statuses: list[int] = []
        over = threading.Event()

        def client() -> None:
            while not over.is_set():
                statuses.append(complete(up.url)[0])

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        killed = int(fleet["replica-0"]["metadata"]["pid"])
        os.kill(killed, signal.SIGKILL)
        until(lambda: up.fleet().get("replica-0", {}).get("metadata", {}).get("pid") not in (None, str(killed)))
        until(lambda: up.fleet()["replica-0"]["condition"] == "ready")
        restarted = subprocess.run(
            [sys.executable, "-m", "headrace.cli.main", "fleet", "restart", "--gateway", up.url],
            capture_output=True, text=True, env=QUIET, timeout=120, check=True,
        )  # fmt: skip
        assert json.loads(restarted.stdout) == {"restarted": ["replica-0", "replica-1"]}
        over.set()
        for thread in clients:
            thread.join()
        assert len(statuses) > 10
        assert set(statuses) == {200}
        pids = [int(replica["metadata"]["pid"]) for replica in up.fleet().values()]
        assert up.end() == 0
        assert not any(map(is_alive, pids))
    assert any(line.startswith("[replica-0] ") for line in up.lines)
    assert any(line.startswith("[replica-1] headrace: serving") for line in up.lines)


def test_replicas_do_not_outlive_a_gateway_that_is_killed() -> None:
    with running("up", "builtin", "--replicas", "1", "--port", "0", *SIMULATED) as up:
        (replica,) = up.fleet().values()
        pid = int(replica["metadata"]["pid"])
        assert is_alive(pid)
        up.process.kill()
        until(lambda: not is_alive(pid), 10)


def test_a_model_that_cannot_be_loaded_ends_up(tmp_path: Path) -> None:
    with running("up", str(tmp_path), "--replicas", "2", "--port", "0") as up:
        assert up.process.wait(120) == 3
    assert any("given up" in line and str(tmp_path) in line for line in up.lines), up.lines


def test_keys_hold_for_clients_and_replicas(tmp_path: Path) -> None:
    user, user_entry = new_key("u")
    admin, admin_entry = new_key("a", "admin")
    keys = tmp_path / "keys.txt"
    keys.write_text(f"{user_entry}\n{admin_entry}\n")
    with running(
        "up", "builtin", "--port", "0", "--api-keys-file", str(keys), "--log-format", "json", *SIMULATED
    ) as up:
        url = up.url
        assert complete(url)[0] == 401
        assert complete(url, user)[0] == 200
        assert call_json("GET", f"{url}/admin/fleet", api_key=user).status == 403
        (replica,) = up.fleet(api_key=admin).values()
        assert replica["models"] == ["builtin"]  # so the gateway's own key is good
        assert complete(replica["url"])[0] == 401  # nobody gets round the gateway
        assert up.end() == 0
    lines = [json.loads(line) for line in up.lines if line.startswith("{")]
    assert {line.get("replica") for line in lines} == {None, "replica-0"}


def test_a_server_registers_at_a_gateway_and_leaves_it() -> None:
    with running("gateway", "--port", "0") as gateway:
        assert call_json("GET", f"{gateway.url}/health/ready").status == 503
        serve = ("serve", "builtin", "--port", "0", "--register", gateway.url, "--register-name", "mine", *SIMULATED)
        with running(*serve) as server:
            until(lambda: gateway.fleet().get("mine", {}).get("condition") == "ready")
            assert gateway.fleet()["mine"]["url"] == server.url
            assert complete(gateway.url)[0] == 200
            assert server.end() == 0
            assert gateway.fleet() == {}
        assert gateway.end() == 0


def test_the_fleet_command() -> None:
    def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "headrace.cli.main", "fleet", *arguments, "--gateway", gateway.url]
        return subprocess.run(command, capture_output=True, text=True, env=QUIET, timeout=60, check=False)

    with running("gateway", "--port", "0") as gateway:
        assert fleet("status").stdout == "there are no replicas\n"
        assert fleet("add", "http://127.0.0.1:9", "--name", "far", "--model", "m").returncode == 0
        until(lambda: "far" in gateway.fleet())
        assert fleet("drain", "far").returncode == 0
        head, row = fleet("status").stdout.splitlines()
        assert head.split()[:3] == ["replica", "address", "condition"]
        assert row.split() == ["far", "http://127.0.0.1:9", "draining", "0", "0", "0", "0%", "m"]
        assert fleet("undrain", "far").returncode == 0
        assert json.loads(fleet("status", "--json").stdout)["replicas"][0]["condition"] in ("ready", "down")
        assert fleet("remove", "far").returncode == 0
        refused = fleet("drain", "far")
        assert refused.returncode == 1
        assert "no replica 'far'" in refused.stderr
        assert gateway.end() == 0


def test_what_replicas_get_of_the_environment() -> None:
    given = {
        "PATH": "/bin", "HEADRACE_PORT": "80", "HEADRACE_CONFIG": "x", "HEADRACE_API_KEY": "s", "NUM_BLOCKS": "5",
        "HEADRACE_CPU_ISA": "avx2", "HF_HOME": "/models",
    }  # fmt: skip
    kept = {"PATH": "/bin", "HEADRACE_CPU_ISA": "avx2", "HF_HOME": "/models"}
    assert child_environment(3, given) == {**kept, "HEADRACE_CPU_THREADS": "3"}
    assert child_environment(3, {"HEADRACE_CPU_THREADS": "7"}) == {"HEADRACE_CPU_THREADS": "7"}
    assert child_environment(3, {"CUDA_VISIBLE_DEVICES": "2,3"}, "3")["CUDA_VISIBLE_DEVICES"] == "3"
    assert child_environment(3, {"CUDA_VISIBLE_DEVICES": "2,3"})["CUDA_VISIBLE_DEVICES"] == "2,3"
