"""`headrace gateway`: one address for many replicas, of headrace or of any OpenAI-compatible server.

Exit codes: 0 stopped, all that ran was finished or had its time; 1 not foreseen; 2 a setting that cannot be; 4 the port
is taken; 130 ended at once by a second signal.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

from headrace.cli.engine_arguments import add_sources, settings_of
from headrace.cli.field_flags import add_field_flags
from headrace.config import GatewayConfig, ServerConfig

_EPILOG = """\
exit codes:
  0    stopped by SIGTERM or SIGINT; what ran was finished, or had drain_timeout_s for it
  1    something that was not foreseen
  2    a flag or setting that cannot be
  4    the port is taken, or the address is none of this machine
  130  ended at once by a second signal
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add_sources(parser)
    group = parser.add_argument_group("gateway")
    group.add_argument(
        "--replicas", action="append", metavar="URL,…", default=argparse.SUPPRESS,
        help="addresses of replicas, http://host:port, divided by commas; may be given several times",
    )  # fmt: skip
    add_field_flags(group, GatewayConfig, without=("replicas",))
    add_front_arguments(parser)


def add_front_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting of the server that is a gateway's too."""
    from headrace.cli.front import FRONT_SETTINGS

    others = {field.name for field in fields(ServerConfig)} - set(FRONT_SETTINGS)
    add_field_flags(parser.add_argument_group("server"), ServerConfig, without=others)


def run(arguments: argparse.Namespace) -> int:
    """Pass requests on until a signal; returns the exit code."""
    from headrace.cli.front import run_front

    if "replicas" in arguments:
        arguments.replicas = [url.strip() for given in arguments.replicas for url in given.split(",") if url.strip()]
    settings = settings_of(arguments, (ServerConfig, GatewayConfig))
    return run_front(settings.server, settings.gateway, None, lambda url: f"gateway at {url}")
