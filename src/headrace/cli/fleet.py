"""`headrace fleet`: look at a gateway's replicas, and change them."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

from headrace.config.environment import read_client_environment
from headrace.errors import HeadraceError
from headrace.protocol.json_call import call_json

_GATEWAY = "http://127.0.0.1:8000"
_PATIENCE_S = 3600.0
_ACTIONS = {
    "drain": "give a replica nothing new; what it has goes on",
    "undrain": "give it requests again",
    "remove": "take out a replica that was added here or registered itself",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = _action(actions, "status", "print every replica, how it is and what it has to do")
    status.add_argument("--json", action="store_true", help="print JSON")
    for name, summary in _ACTIONS.items():
        _action(actions, name, summary).add_argument("name", metavar="NAME", help="of the replica, as status shows it")
    add = _action(actions, "add", "send requests to one more replica, until the gateway ends")
    add.add_argument("url", metavar="URL", help="its address, http://host:port")
    add.add_argument("--name", help="its name (default: host and port)")
    add.add_argument("--weight", type=float, help="its share relative to others (default: 1)")
    add.add_argument(
        "--model", action="append", dest="models", metavar="NAME", help="that it serves (default: it is asked)"
    )
    _action(actions, "restart", "restart the replicas of `headrace up` one after the other, with no request lost")
    scale = _action(actions, "scale", "have `headrace up` run so many replicas")
    scale.add_argument("count", type=int, metavar="N", help="how many")


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument(
        "--gateway", default=_GATEWAY, metavar="URL", help=f"address of the gateway (default: {_GATEWAY})"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help="key of role admin; better as HEADRACE_API_KEY, others see command lines"
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Ask the gateway."""
    method, path, body, timeout_s = _request(arguments)
    key = arguments.api_key or read_client_environment()
    try:
        answer = call_json(method, arguments.gateway.rstrip("/") + path, body, key, timeout_s)
    except (OSError, ValueError) as error:
        raise HeadraceError(
            f"no gateway answers at {arguments.gateway}: {error}; --gateway URL names another"
        ) from error
    if answer.status >= 400:
        raise HeadraceError(answer.message)
    if arguments.action != "status":
        print(json.dumps(answer.body))
    elif arguments.json:
        print(json.dumps(answer.body, indent=2))
    else:
        print("\n".join(_table(answer.body["replicas"])))
    return 0


def _request(arguments: argparse.Namespace) -> tuple[str, str, Any, float]:
    action = arguments.action
    if action == "status":
        return "GET", "/admin/fleet", None, 10.0
    if action == "add":
        given = {name: getattr(arguments, name) for name in ("url", "name", "weight", "models")}
        return "POST", "/admin/replicas", {name: value for name, value in given.items() if value is not None}, 10.0
    if action == "restart":
        return "POST", "/admin/rolling_restart", {}, _PATIENCE_S
    if action == "scale":
        return "POST", "/admin/scale", {"replicas": arguments.count}, _PATIENCE_S
    path = f"/admin/replicas/{quote(arguments.name, safe='')}"
    return ("DELETE", path, None, 10.0) if action == "remove" else ("POST", f"{path}/{action}", {}, 10.0)


def _table(replicas: list[dict[str, Any]]) -> list[str]:
    """For people."""
    if not replicas:
        return ["there are no replicas"]
    head = ("replica", "address", "condition", "in flight", "running", "waiting", "cache", "models")
    rows = [head] + [
        (
            replica["name"],
            replica["url"],
            replica["condition"],
            str(replica["num_in_flight"]),
            str(replica["reported"]["running"]),
            str(replica["reported"]["waiting"]),
            f"{replica['reported']['cache_ratio']:.0%}",
            ", ".join(replica["models"]) or "?",
        )
        for replica in replicas
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
