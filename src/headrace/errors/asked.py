"""What was asked cannot be served as it was asked."""

from __future__ import annotations

from headrace.errors.base import HeadraceError


class InvalidRequest(HeadraceError, ValueError):
    """The request cannot be served as it was asked."""

    code = "invalid_request"
    http_status = 400


class InvalidParameter(InvalidRequest):
    """A sampling parameter or argument is out of its range."""

    code = "invalid_parameter"

    def __init__(self, name: str, value: object, allowed: str) -> None:
        """Name the parameter, show the value, and say what is allowed."""
        super().__init__(f"{name}={value!r} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class InvalidBody(InvalidRequest):
    """A body that is no JSON, or no JSON object."""

    code = "invalid_body"


class InvalidField(InvalidRequest):
    """A field of a body is missing, or its value is not allowed.

    Attributes:
        name: its path, `messages[2].content[0].type`.
        hint: what is allowed.
    """

    code = "invalid_parameter"

    def __init__(self, name: str, shown: str | None, allowed: str) -> None:
        """Name the field, show its value as JSON (None: it is missing), and say what is allowed."""
        missing = f"{name} is missing: {allowed} is needed"
        super().__init__(missing if shown is None else f"{name}={shown} is not allowed: {allowed}")
        self.name = name
        self.hint = allowed


class UnsupportedField(InvalidRequest):
    """A field, or a value of one, that belongs to the interface and that headrace does not have.

    Attributes:
        name: its path. hint: what would work.
    """

    code = "unsupported_field"

    def __init__(self, name: str, shown: str, hint: str) -> None:
        """Name the field, show its value as JSON, and say what would work."""
        super().__init__(f"{name}={shown} is not supported; what works: {hint}")
        self.name = name
        self.hint = hint


class UnknownField(InvalidRequest):
    """A field that no interface has, on a server that takes none of these (strict_fields).

    Attributes:
        name: its path. hint: the nearest name there is.
    """

    code = "unknown_field"

    def __init__(self, name: str, nearest: str | None) -> None:
        """Name the field, and the nearest there is."""
        self.name = name
        self.hint = f"did you mean {nearest}?" if nearest else "docs/api.md lists the fields"
        super().__init__(f"{name} is not a field of this request: {self.hint}")


class InvalidGuide(InvalidRequest):
    """A schema, regular expression or grammar that cannot be compiled; the message has the compiler's words."""

    code = "invalid_guide"


class GuideTimeout(InvalidGuide):
    """Compiling a guide took too long."""

    code = "guide_timeout"


class EmptyPrompt(InvalidRequest):
    """A prompt without a token."""

    code = "empty_prompt"


class PromptTooLong(InvalidRequest):
    """A prompt longer than the model or than the whole cache."""

    code = "prompt_too_long"


class TokenOutOfRange(InvalidRequest):
    """A token id that the model does not have."""

    code = "token_out_of_range"
