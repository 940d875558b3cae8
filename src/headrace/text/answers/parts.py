"""The parts of an answer, in the order in which they are written: the wire's own types (headrace.protocol)."""

from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart

__all__ = ["ContentPart", "Part", "ReasoningPart", "ToolCallPart"]
