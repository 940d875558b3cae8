"""Kinds of values: each reads one, says in words what it takes, and describes itself as a JSON schema.

One description of a field is what is checked, what docs/api.md says and what /openapi.json says.
"""

from headrace.protocol.kinds.compound import MAX_DEPTH, Anything, Either, Json, ListOf, LogitBias, Tagged, TokenIds
from headrace.protocol.kinds.kind import Kind, Reading, Schema
from headrace.protocol.kinds.scalars import Boolean, Integer, Number, OneOf, Text

__all__ = [
    "MAX_DEPTH",
    "Anything",
    "Boolean",
    "Either",
    "Integer",
    "Json",
    "Kind",
    "ListOf",
    "LogitBias",
    "Number",
    "OneOf",
    "Reading",
    "Schema",
    "Tagged",
    "Text",
    "TokenIds",
]
