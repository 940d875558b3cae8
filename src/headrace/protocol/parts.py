"""What the text of an answer is made of: the type between who reads the text (text/answers) and who writes it out."""

from __future__ import annotations

from typing import NamedTuple


class ContentPart(NamedTuple):
    """Text for the reader."""

    text: str


class ReasoningPart(NamedTuple):
    """Text that the model thought to itself."""

    text: str


class ToolCallPart(NamedTuple):
    """A piece of a call of a function.

    Attributes:
        index: number of the call within the answer, from 0.
        id: the call's name for itself, the same on every piece.
        name: the function; on the first piece of a call only.
        arguments_fragment: the next characters of the arguments, which are JSON once they are complete.
    """

    index: int
    id: str
    name: str | None
    arguments_fragment: str


Part = ContentPart | ReasoningPart | ToolCallPart
