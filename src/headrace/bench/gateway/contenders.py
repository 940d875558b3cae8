"""The gateways that are compared: how each is found and started in front of given backends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.bench.gateway.processes import free_port
from headrace.errors import ConfigError

Argv = list[str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender is started.

    Attributes: port: that it listens on. backends: host:port of each. folder: for its files.
    """

    port: int
    backends: Sequence[str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Contender:
    """One gateway.

    Attributes:
        program: name of its command; "" for none. argv: what starts it, given the command and the place.
        ready_path: answered with 200 once it passes requests on. settings: of its environment.
        note: what its settings are, for the report.
    """

    name: str
    program: str
    argv: Callable[[str, Place], Argv]
    note: str
    ready_path: str = "/v1/models"
    settings: Mapping[str, str] = field(default_factory=dict)


_HAPROXY = """\
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  option redispatch 1
  retries 2
  retry-on conn-failure empty-response
  option http-no-delay
  http-reuse always
frontend clients
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /health
  timeout check 400ms
  default-server check inter 250ms fall 2 rise 2
  default-server observe layer4 error-limit 3 on-error mark-down on-marked-down shutdown-sessions
{servers}
"""

_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream replicas {{ least_conn; {servers} keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_connect_timeout 1s;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504 non_idempotent;
    }}
  }}
}}
"""


def _headrace(policy: str) -> Callable[[str, Place], Argv]:
    def argv(program: str, place: Place) -> Argv:
        return [
            program, "gateway", "--port", str(place.port), "--policy", policy, "--index-file",
            str(place.folder / "index"), *(part for url in _urls(place) for part in ("--replicas", url)),
        ]  # fmt: skip

    return argv


def _haproxy(program: str, place: Place) -> Argv:
    servers = "\n".join(f"  server s{number} {backend}" for number, backend in enumerate(place.backends))
    settings = place.folder / "haproxy.cfg"
    settings.write_text(_HAPROXY.format(port=place.port, servers=servers))
    return [program, "-db", "-f", str(settings)]


def _nginx(program: str, place: Place) -> Argv:
    servers = " ".join(f"server {backend} fail_timeout=5s;" for backend in place.backends)
    settings = place.folder / "nginx.conf"
    settings.write_text(_NGINX.format(port=place.port, servers=servers, folder=place.folder))
    return [program, "-e", str(place.folder / "nginx.log"), "-p", str(place.folder), "-c", str(settings)]


_FAST_CHECKS = (
    "--health-check-interval-secs", "1", "--health-check-timeout-secs", "1", "--health-failure-threshold", "2",
)  # fmt: skip


def _router(policy: str, *before: str) -> Callable[[str, Place], Argv]:
    """VLLM's and SGLang's routers take the same flags."""

    def argv(program: str, place: Place) -> Argv:
        return [
            program, *before, "--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", *_urls(place),
            "--policy", policy, "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()),
            "--log-level", "error", *_FAST_CHECKS,
        ]  # fmt: skip

    return argv


def _urls(place: Place) -> list[str]:
    return [f"http://{backend}" for backend in place.backends]


def _no_program(program: str, place: Place) -> Argv:
    return []


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("direct", "", _no_program, "no gateway: the first backend itself"),
        Contender("headrace", "headrace", _headrace("prefix"), "policy prefix", "/health/ready"),
        Contender("headrace-rr", "headrace", _headrace("round_robin"), "policy round_robin", "/health/ready"),
        Contender("haproxy", "haproxy", _haproxy, "leastconn, one thread, checks every 250 ms"),
        Contender("nginx", "nginx", _nginx, "least_conn, one worker"),
        Contender("vllm-router", "vllm-router", _router("cache_aware"), "cache_aware, checks every 1 s"),
        Contender("sglang-router", "sglang-router", _router("cache_aware", "launch"), "cache_aware, checks every 1 s"),
    )
}


def find(contender: Contender, commands: Mapping[str, str]) -> str:
    """The command of a contender. Raises ConfigError when it is not installed.

    Args:
        commands: paths that were given, by the contender's name.
    """
    if not contender.program:
        return ""
    given = commands.get(contender.name) or commands.get(contender.program)
    beside = Path(sys.executable).with_name(contender.program)
    found = given or (str(beside) if beside.exists() else shutil.which(contender.program))
    if found is None or not Path(found).exists():
        raise ConfigError(
            f"{contender.program} is not installed, or not on the PATH; --command {contender.name}=/path/to/it"
        )
    return str(Path(found).absolute())


def version(contender: Contender, program: str) -> str:
    """What the command says of its version, in one line."""
    if not program:
        return ""
    for flag in ("--version", "-v"):
        done = subprocess.run([program, flag], capture_output=True, text=True, timeout=30, check=False)
        lines = (done.stdout or done.stderr).strip().splitlines()
        if done.returncode == 0 and lines:
            return lines[0].strip()
    return _package_version(contender.program, program)


def _package_version(name: str, program: str) -> str:
    python = Path(program).with_name("python")
    if not python.exists():
        return ""
    code = f"import importlib.metadata as m; print({name!r}, m.version({name!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip()
