"""`headrace config show`: every setting, and where its value came from."""

from __future__ import annotations

import argparse

from headrace.cli.engine_arguments import add_server_arguments, settings_of
from headrace.cli.field_flags import add_field_flags
from headrace.config import GatewayConfig
from headrace.config.sources import SETTINGS_CLASSES, as_json, as_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "print each setting, its value and where it came from; takes the flags of serve and gateway"
    show = actions.add_parser("show", help=summary, description=summary, allow_abbrev=False)
    show.usage = "headrace config show [--json] [--config FILE] [--preset NAME] [options]"
    show.add_argument("--json", action="store_true", help="print JSON")
    add_server_arguments(show)
    add_field_flags(show.add_argument_group("gateway"), GatewayConfig)


def run(arguments: argparse.Namespace) -> int:
    """Print the settings; what is wrong with them is an error as it would be at the start of a server."""
    settings = settings_of(arguments, SETTINGS_CLASSES)
    for kind in SETTINGS_CLASSES:
        settings.build(kind)
    print(as_json(settings) if arguments.json else "\n".join(as_lines(settings)))
    return 0
