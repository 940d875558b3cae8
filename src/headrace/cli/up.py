"""`headrace up`: replicas of one model and a gateway in front of them, on one machine, kept alive.

Exit codes: those of `headrace serve`; 3 when the model cannot be loaded, 5 when no replica can be kept alive.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from headrace.cli.engine_arguments import add_model_arguments, add_server_arguments, settings_of
from headrace.cli.field_flags import add_field_flags
from headrace.cli.gpu_shares import GpuShares
from headrace.cli.replica_lines import replica_lines
from headrace.config import EngineConfig, GatewayConfig, ServerConfig
from headrace.config.environment import child_environment, visible_gpus
from headrace.config.sources import as_file
from headrace.errors import ConfigError
from headrace.gateway.child import Child
from headrace.gateway.supervisor import Supervisor
from headrace.observability.machine import usable_threads
from headrace.server.keys import KeyEntry, key_digest, new_key

_EPILOG = """\
exit codes:
  0    stopped by SIGTERM or SIGINT; what ran was finished, or had drain_timeout_s for it
  1    something that was not foreseen
  2    a flag or setting that cannot be
  3    the model cannot be loaded
  4    the port is taken, or the address is none of this machine
  5    no replica could be kept alive
  130  ended at once by a second signal
"""

_THE_GATEWAYS = frozenset(
    {"host", "port", "uds", "tls_certificate", "tls_key", "no_auth", "log_file", "register", "register_name",
     "advertise_url", "register_key"}
)  # fmt: skip
"""Settings of a server that the replicas have otherwise: they listen to this machine alone, and log to the gateway."""

_MOST_REPLICAS = 64
_KEY_NAME = "headrace-gateway"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_model_arguments(parser)
    parser.add_argument(
        "--replicas", dest="num_replicas", type=int, default=1, metavar="N", help="how many to run (default: 1)"
    )
    parser.add_argument(
        "--simulated", action="append", metavar="KEY=VALUE", help="as of `headrace serve`; may be given several times"
    )
    add_server_arguments(parser)
    add_field_flags(parser.add_argument_group("gateway"), GatewayConfig, without=("replicas",))


def run(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns the exit code."""
    count = arguments.num_replicas
    if not 1 <= count <= _MOST_REPLICAS:
        raise ConfigError(f"--replicas {count} must be 1 to {_MOST_REPLICAS}")
    settings = settings_of(arguments, (EngineConfig, ServerConfig))
    server = settings.server
    device = settings.engine.device  # what is wrong in the engine's settings is said here, and once
    gateway, key_entry = _with_key(settings_of(arguments, (GatewayConfig,)).gateway, server)
    from headrace.cli.front import run_front

    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        file = Path(folder) / "replica.yaml"  # in a folder that only this user may enter: it may hold secrets
        keys = {} if key_entry is None else {"api_keys": (*server.api_keys, key_entry)}
        file.write_text(as_file(settings, _THE_GATEWAYS, **keys), encoding="utf-8")
        num_threads = max(1, usable_threads() // count)
        tell, shares = replica_lines(server.log_format), GpuShares(visible_gpus(), device)
        children: dict[str, Child] = {}

        async def start_child(name: str) -> Child:
            gpu = shares.take(name, [other for other, child in children.items() if child.is_alive])
            environment = child_environment(num_threads, gpu=gpu)
            children[name] = await Child.start(_command(arguments, file), environment, lambda line: tell(name, line))
            return children[name]

        return run_front(
            server,
            gateway,
            lambda: Supervisor(start_child, count, server.drain_timeout_s),
            lambda url: f"serving {arguments.model} with {count} replica{'s' * (count > 1)} at {url}",
        )


def _command(arguments: argparse.Namespace, file: Path) -> list[str]:
    """How a replica is started: settings by a file, what goes with the model by flags."""
    command = [sys.executable, "-m", "headrace.cli.supervised", str(os.getpid()), "serve", arguments.model]
    command += ["--config", str(file), "--host", "127.0.0.1", "--port", "0"]
    for name in ("tokenizer", "revision"):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", getattr(arguments, name)]
    command += ["--trust-remote-code"] * arguments.trust_remote_code
    for pair in arguments.simulated or ():
        command += ["--simulated", pair]
    return command


def _with_key(gateway: GatewayConfig, server: ServerConfig) -> tuple[GatewayConfig, str | None]:
    """The gateway's key to its own replicas, where clients need one too, and what the replicas keep of it."""
    if not server.has_credentials:
        return gateway, None
    if gateway.replica_api_key is not None:
        return gateway, str(KeyEntry(_KEY_NAME, "user", key_digest(gateway.replica_api_key)))
    key, entry = new_key(_KEY_NAME)
    return replace(gateway, replica_api_key=key), str(entry)
