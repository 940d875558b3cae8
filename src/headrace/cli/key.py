"""`headrace key new`: make an API key for the server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace.server.keys import ROLES, append_entry, new_key

_EPILOG = """\
The key is shown once, on the standard output; only its hash is kept. A running server learns of a new key when it is
started again. To take a key back, remove its line.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "make a key, print it, and add its hash to a file"
    new = actions.add_parser("new", help=summary, description=summary, epilog=_EPILOG, allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help="whose key it is; shown in logs")
    new.add_argument("--role", choices=ROLES, default="user", help="admin may also call /admin/… (default: user)")
    new.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="the server's api_keys_file; without it, the line for it (or for HEADRACE_API_KEYS) goes to stderr",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the key."""
    key, entry = new_key(arguments.name, arguments.role)
    if arguments.file is None:
        print(f"headrace: keep this line: {entry}", file=sys.stderr)
    else:
        append_entry(arguments.file, entry)
        print(f"headrace: added {entry.name} ({entry.role}) to {arguments.file}; the key is not kept", file=sys.stderr)
    print(key)
    return 0
