"""docs/api.md, made from the table of fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.protocol.fields import Field, Object
from headrace.protocol.kinds import Either, Kind, ListOf, Tagged
from headrace.protocol.shown import shown
from headrace.protocol.table.endpoints import ENDPOINTS, Endpoint

_HEAD = """# The HTTP interface

Made from the table in `src/headrace/protocol/table/` by `python -m tools.api_docs`; do not edit.

Every field is in one of five classes:

- **supported**: it does what the interface says.
- *informational*: taken, without effect on the answer by its nature.
- ~~unsupported~~: known, and answered with 400, the field's name and what would work, unless its value asks for
  nothing.
- internal: what the parts of headrace say to each other; clients have no use for it.
- unknown, which is every field that is not listed: taken, and named in the header `x-ignored-fields`; with
  `--strict-fields` answered with 400 and the nearest name. `tools` are named there too where the model's template has
  no place for them and no call is forced: they reach the model through nothing else.

null means "not given". A value of a wrong type or range is answered with 400, the field's path (such as
`messages[2].content[0].type`), the value, and what is allowed.

Errors have the form of the interface (`{"error": {"message", "type", "param", "code", "hint", "request_id"}}`, or
Anthropic's), with a `code` that is stable, and the value that would work as the `hint`. A body is JSON in UTF-8 as it
is: one that is compressed is answered with 415. An error in mid-stream is an event: `data: {"error": …}` in chat and
completions (and no `[DONE]`), `event: error` in messages, `error` and `response.failed` in responses.

With `return_token_ids`, chunks carry the ids of their tokens: `prompt_token_ids` in the first; `token_ids` in the
choice of each chunk (chat, completions), in each delta and the last event (messages, responses).
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "## Endpoints\n", *_endpoint_rows()]
    parts += [section for endpoint in ENDPOINTS if endpoint.body for section in _section(endpoint, endpoint.body)]
    return "\n".join(parts).rstrip() + "\n"


def _endpoint_rows() -> Iterator[str]:
    yield "| endpoint | does | needs |\n|---|---|---|"
    for item in ENDPOINTS:
        needs = "nothing" if item.open else "the role admin" if item.admin else "a key, where keys are used"
        yield f"| `{item.method} {item.path}` | {item.summary} | {needs} |"
    yield ""


def _section(endpoint: Endpoint, body: Object) -> Iterator[str]:
    yield f"## {endpoint.method} {endpoint.path}\n"
    supported = [item for item in body if item.support == "supported"]
    yield from _table(supported)
    for listed, paths in _inner_tables(supported):
        yield f"{', '.join(f'`{path}`' for path in paths)}:\n"
        yield from listed
    yield from _others("Informational", _of_class(body, "informational"))
    yield from _others("Unsupported, with what works", _of_class(body, "unsupported"))
    yield from _others("Internal", _of_class(body, "internal"))


def _inner_tables(fields: Iterable[Field]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Tables of the objects inside of fields, each once, with the paths where it holds."""
    found: dict[tuple[str, ...], list[str]] = {}
    for path, inner in _objects(fields):
        listed = [item for item in inner if item.name not in ("type", "role") and item.support == "supported"]
        if any(item.note for item in listed):
            found.setdefault(tuple(_table(listed)), []).append(path)
    yield from found.items()


def _table(fields: Iterable[Field]) -> Iterator[str]:
    yield "| field | takes | does |\n|---|---|---|"
    for item in fields:
        words = item.kind.words.replace("|", "\\|")
        yield f"| `{item.name}`{' (required)' * item.required} | {words} | {item.note.replace('|', chr(92) + '|')} |"
    yield ""


def _others(title: str, found: list[tuple[str, Field]]) -> Iterator[str]:
    if not found:
        return
    yield f"{title}:\n"
    paths: dict[str, list[str]] = {}
    for path, item in found:
        allowed = ", ".join(f"`{shown(value)}`" for value in item.neutral)
        note = item.note + (f" (taken: {allowed})" if allowed else "")
        mark = {"informational": "*", "unsupported": "~~"}.get(item.support, "")
        paths.setdefault(note, []).append(f"{mark}`{path}`{mark}")
    yield from (f"- {', '.join(named)}: {note}" for note, named in paths.items())
    yield ""


def _of_class(body: Object, support: str) -> list[tuple[str, Field]]:
    found = {item.name: item for item in body if item.support == support}
    for path, inner in _objects(body):
        found |= {f"{path}.{item.name}": item for item in inner if item.support == support}
    return list(found.items())


def _objects(fields: Iterable[Field]) -> Iterator[tuple[str, Object]]:
    """Objects inside of fields, with their paths."""
    for item in fields:
        if item.support == "supported":
            yield from _inside(item.name, item.kind)


def _inside(path: str, kind: Kind) -> Iterator[tuple[str, Object]]:
    if isinstance(kind, Object):
        yield path, kind
        for inner in kind:
            yield from _inside(f"{path}.{inner.name}", inner.kind)
    elif isinstance(kind, ListOf):
        yield from _inside(f"{path}[]", kind.item)
    elif isinstance(kind, Either):
        for one in kind.kinds:
            yield from _inside(path, one)
    elif isinstance(kind, Tagged):
        for name, one in kind.variants.items():
            yield from _inside(f"{path}({name})" if len(kind.variants) > 1 else path, one)
