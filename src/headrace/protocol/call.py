"""What a client asks for, whatever interface it came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.errors import InvalidField
from headrace.protocol.parts import ToolChoice

FinishReason = Literal["stop", "length"]
GenerationEndpoint = Literal["chat", "completions", "messages", "responses"]
Message = dict[str, Any]
_OWN_CHOICE = ToolChoice()


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in the form that chat templates expect.

    Attributes:
        messages: role (system, user, assistant, tool) and content, always a string; an assistant's may have tool_calls
            (arguments as an object) and reasoning_content, a tool's has tool_call_id, name and maybe is_error.
        tools: {"type": "function", "function": {"name", "description", "parameters", "strict"}}; those that the model
            is told of: none under tool_choice none, the allowed ones under allowed_tools.
        chat_template_kwargs: for the template.
        add_generation_prompt: end with the opening of the answer.
        continue_final_message: leave the last message open: the answer goes on from it.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False


Prompt = str | tuple[int, ...] | Conversation


@dataclass(frozen=True, slots=True)
class GuideRequest:
    """What an answer must follow.

    Attributes:
        kind: of the rule.
        value: JSON text of a schema, a regular expression, a grammar, or JSON text of a list of choices; "" for any
            JSON object.
        field: the field that asked, for messages.
        strict: what of a schema cannot be enforced is refused; else it is left out.
    """

    kind: Literal["json_object", "json_schema", "regex", "grammar", "choice"]
    value: str
    field: str
    strict: bool = True


@dataclass(frozen=True, slots=True)
class BegunChoice:
    """One answer as far as it was given out. Attributes: finish_reason: of the engine; None: it goes on."""

    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None


_NOT_BEGUN = BegunChoice()


@dataclass(frozen=True, slots=True)
class Continuation:
    """A stream that another server began, and that is to go on here as if nothing had happened.

    Attributes:
        response_id, created: that it began with; created is None where the interface does not tell it.
        seed: that it was drawn with; None where that is not known: then what follows is drawn anew.
        choices: the first of the answers; of others nothing was given out.
    """

    response_id: str
    created: int | None
    seed: int | None
    choices: tuple[BegunChoice, ...]

    def choice(self, index: int) -> BegunChoice:
        """One of the answers."""
        return self.choices[index] if index < len(self.choices) else _NOT_BEGUN


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationCall:
    """One request for an answer.

    Attributes:
        endpoint: it came to.
        model: by name; None: the server's own.
        prompts: one, but for completions with several.
        sampling: keyword arguments of SamplingParams: what the client gave, and always max_tokens (None: what the
            model's length leaves room for). The model's own defaults are due for what is missing.
        guide: what the answer must follow.
        tool_choice: auto without tools means nothing.
        include_reasoning: false: reasoning is left out of the answer.
        stream, include_usage, continuous_usage: of the stream.
        num_top_logprobs: alternatives at each token in the answer; None: no log-probabilities.
        echo: the answer begins with the prompt.
        prompt_only: not one token is wanted (echo with max_tokens 0); one is generated, and the writer drops it.
        add_special_tokens: around text prompts.
        tokens_as_ids: tokens in logprobs are written "token_id:…".
        settings: the body's fields as given, checked; Responses repeats them.
        ignored_fields: paths of fields that no table has.
        continuation: what was given out already; None: the answer begins here.
    """

    endpoint: GenerationEndpoint
    prompts: tuple[Prompt, ...]
    sampling: dict[str, Any]
    model: str | None = None
    guide: GuideRequest | None = None
    tool_choice: ToolChoice = _OWN_CHOICE
    include_reasoning: bool = True
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    num_top_logprobs: int | None = None
    echo: bool = False
    prompt_only: bool = False
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    cache_salt: str | None = None
    priority: int = 0
    user: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignored_fields: tuple[str, ...] = ()
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        """A continuation fits what it continues.

        Raises:
            InvalidField: it does not.
        """
        begun = self.continuation
        if begun is None:
            return
        if not self.stream:
            raise InvalidField("headrace_continue", "an object", "a request with stream: true: only streams go on")
        if len(begun.choices) > self.num_choices:
            num_asked = f"at most {self.num_choices}, the answers that the request asks for"
            raise InvalidField("headrace_continue.choices", f"{len(begun.choices)} of them", num_asked)

    @property
    def n(self) -> int:
        """Answers to each prompt."""
        return int(self.sampling.get("n", 1))

    @property
    def num_choices(self) -> int:
        """Answers in all; those of prompt p are p·n … p·n + n - 1."""
        return self.n * len(self.prompts)

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Functions that the model may call."""
        first = self.prompts[0]
        return first.tools if isinstance(first, Conversation) else ()


@dataclass(frozen=True, slots=True)
class CountCall:
    """Tokens of this are to be counted or listed.

    Attributes:
        model: by name. prompt: text or conversation. add_special_tokens: around a text.
        return_token_strs: each token also as text.
        ignored_fields: paths of fields that no table has.
    """

    model: str | None
    prompt: str | Conversation
    add_special_tokens: bool = True
    return_token_strs: bool = False
    ignored_fields: tuple[str, ...] = ()

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Functions of the conversation."""
        return self.prompt.tools if isinstance(self.prompt, Conversation) else ()


@dataclass(frozen=True, slots=True)
class DetokenizeCall:
    """Text of these is wanted. Attributes: model: by name. tokens: ids. ignored_fields: that no table has."""

    model: str | None
    tokens: tuple[int, ...]
    ignored_fields: tuple[str, ...] = ()
