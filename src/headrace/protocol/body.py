"""From bytes to checked fields."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.errors import InvalidBody
from headrace.protocol.fields import Object
from headrace.protocol.kinds import Reading

Body = bytes | bytearray | memoryview | dict[str, Any]

_decode = msgspec.json.Decoder().decode


def read_body(body: Body, fields: Object, reading: Reading) -> dict[str, Any]:
    """The fields that are given, checked and normalised; unknown ones are noted in `reading`.

    Raises:
        InvalidBody: it is no JSON object.
        InvalidField, UnsupportedField, UnknownField: by the path of the field.
    """
    decoded = body if isinstance(body, dict) else decode(body)
    if not isinstance(decoded, dict):
        raise InvalidBody(f"the body is a JSON {_NAMES[type(decoded)]}; a JSON object is needed")
    try:
        return fields.read(decoded, "", reading)
    except RecursionError as error:
        raise InvalidBody("the body is nested too deeply") from error


def decode(body: bytes | bytearray | memoryview) -> Any:
    """Any JSON value.

    Raises:
        InvalidBody: it is no JSON; the message says where.
    """
    if not len(body):
        raise InvalidBody("the body is empty; a JSON object is needed")
    try:
        return _decode(body)
    except UnicodeDecodeError as error:
        raise InvalidBody(_not_utf8(body)) from error
    except RecursionError as error:
        raise InvalidBody("the body is nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidBody(f"the body is not JSON: {error}") from error


def _not_utf8(body: bytes | bytearray | memoryview) -> str:
    """Where a body stops being UTF-8; msgspec counts from the beginning of the string that it reads."""
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        return f"the body is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
    return "the body is not UTF-8"


_NAMES = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
