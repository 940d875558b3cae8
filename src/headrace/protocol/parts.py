"""What the text of an answer is made of: the type between who reads the text (text/answers) and who writes it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class ContentPart(NamedTuple):
    """More of what is meant for the reader."""

    text: str


class ReasoningPart(NamedTuple):
    """More of what the model wrote for itself before it answered."""

    text: str


class ToolCallPart(NamedTuple):
    """The beginning of a call, or more of its arguments.

    Attributes:
        index: of the call in the answer, from 0.
        call_id: on the first part of a call, else None. name: likewise.
        arguments: a piece of the arguments' JSON text; all pieces of a call together are the object.
    """

    index: int  # type: ignore[assignment]  # tuple's own method of that name is of no use here
    call_id: str | None
    name: str | None
    arguments: str


Part = ContentPart | ReasoningPart | ToolCallPart


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What a client says of the tools: call them or not, at least one, or a certain one.

    Attributes: mode: "named" calls the function `name`. parallel: more than one call in an answer is welcome.
    """

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool = True
