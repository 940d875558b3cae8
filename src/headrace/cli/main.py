"""The command `headrace`: finds the subcommand, shows errors, gives the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from headrace import __version__
from headrace.config.environment import PREFIX
from headrace.config.fields import secret_fields
from headrace.config.nearest import nearest
from headrace.errors import ConfigError, HeadraceError, InvalidRequest, ModelNotSupported

USAGE_ERROR = 2
INTERRUPTED = 130


class Command(NamedTuple):
    """A subcommand: a module with `add_arguments(parser)` and `run(arguments) -> exit code`."""

    module: str
    summary: str


COMMANDS = {
    "generate": Command("headrace.cli.generate", "complete prompts, from the command line or a file of JSON lines"),
    "chat": Command("headrace.cli.chat", "talk with a model in the terminal"),
    "serve": Command("headrace.cli.serve", "serve a model over HTTP, OpenAI-compatible"),
    "up": Command("headrace.cli.up", "serve a model by several replicas behind a gateway, on this machine"),
    "gateway": Command("headrace.cli.gateway", "one address for many replicas, here or elsewhere"),
    "fleet": Command("headrace.cli.fleet", "look at a gateway's replicas, and change them"),
    "config": Command("headrace.cli.config", "show every setting and where its value came from"),
    "key": Command("headrace.cli.key", "make an API key for the server"),
    "bench": Command("headrace.cli.bench", "measure engines side by side"),
    "doctor": Command("headrace.cli.doctor", "what this machine has, and what of headrace would run on it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 good, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(arguments_given)
    arguments, unknown = parser.parse_known_args(arguments_given)
    if unknown:
        called = _called(parser, arguments)
        called.error(_unknown(unknown[0], called))
    if arguments.version:
        print(f"headrace {__version__}")
        return 0
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except HeadraceError as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return USAGE_ERROR if isinstance(error, ConfigError | InvalidRequest | ModelNotSupported) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Without this, Python's own flush at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; only the module of the one that is called is imported."""
    parser = argparse.ArgumentParser(
        prog="headrace", description="Serves large language models by continuous batching.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    called = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.summary, description=command.summary, allow_abbrev=False)
        if name == called:
            module = import_module(command.module)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def _unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    """What is said of an argument that nobody takes; of a flag, with the nearest one."""
    flag = argument.partition("=")[0]
    if not flag.startswith("--"):
        return f"{argument} is one argument too many"
    setting = flag.removeprefix("--").replace("-", "_")
    if setting in _secrets():
        variable = f"{PREFIX}{setting.upper()}"
        return f"{flag}: other users see command lines, so give {variable}, or {setting} in a file (--config)"
    known = [name for name in parser._option_string_actions if name.startswith("--")]
    return f"there is no flag {flag}; did you mean {nearest(flag, known)}?"


def _secrets() -> frozenset[str]:
    """Settings without a flag."""
    from headrace.config import GatewayConfig, ServerConfig  # for an error only

    return secret_fields(ServerConfig) | secret_fields(GatewayConfig)


def _called(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the subcommand, or of its subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and getattr(arguments, action.dest) is not None:
            inner: argparse.ArgumentParser = action.choices[getattr(arguments, action.dest)]
            return _called(inner, arguments)
    return parser


if __name__ == "__main__":
    sys.exit(main())
