"""What a writer is told, and what it has been told of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from headrace.protocol.call import FinishReason
from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart

BlockKind = Literal["content", "reasoning", "call"]


_FURTHER_BYTES = bytes(range(0x80, 0xC0))
"""What UTF-8 writes the rest of a character with."""


class TokenLogprob(NamedTuple):
    """One token of an answer or a prompt, or an alternative to it.

    Attributes:
        token_id: of it. text: of it alone, a character that is not whole as U+FFFD. data: its bytes.
        logprob: natural logarithm, of the model's raw distribution. rank: 1 for the most likely of the vocabulary.
        top: the most likely tokens, most likely first; of an alternative: none.
    """

    token_id: int
    text: str
    data: bytes
    logprob: float
    rank: int | None = None
    top: tuple[TokenLogprob, ...] = ()

    @property
    def num_characters(self) -> int:
        """Characters that begin with it: a token may have only the first or only further bytes of one."""
        return len(self.data.translate(None, _FURTHER_BYTES))

    @property
    def goes_on(self) -> bool:
        """Whether its first byte belongs to a character that another token has begun."""
        return bool(self.data) and self.data[0] in _FURTHER_BYTES


class PromptInfo(NamedTuple):
    """Of one prompt.

    Attributes:
        num_tokens: of it. num_cached_tokens: of these, found in the prefix cache.
        token_ids: needed where call.return_token_ids. text: needed where call.echo.
        first: its first token, needed for log-probabilities with call.echo; it has none itself.
    """

    num_tokens: int
    num_cached_tokens: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    first: TokenLogprob | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a whole request.

    Attributes:
        prompt_tokens: of all prompts, each once. completion_tokens: of all answers, reasoning and calls included.
        cached_tokens: of the prompts' tokens, found in the prefix cache. reasoning_tokens: None: not known.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int | None = None


@dataclass(slots=True)
class Block:
    """A run of parts of one kind. Attributes: texts: its pieces. call_index, call_id, name: of a call."""

    kind: BlockKind
    texts: list[str] = field(default_factory=list)
    call_index: int = -1
    call_id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


_KINDS: dict[type, BlockKind] = {ContentPart: "content", ReasoningPart: "reasoning", ToolCallPart: "call"}


@dataclass(slots=True)
class Answer:
    """One choice of a request.

    Attributes:
        blocks: in the order in which they were written. token_ids, logprobs: of all tokens.
        finish_reason: None while it runs. stop_reason: the stop string or token id.
        prompt_logprobs: None for the first token, then one each, where they were asked for.
    """

    blocks: list[Block] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: Sequence[TokenLogprob | None] | None = None

    def add(self, part: Part) -> tuple[Block, bool]:
        """The block that the part belongs to, and whether it begins with it."""
        kind = _KINDS[type(part)]
        last = self.blocks[-1] if self.blocks else None
        if isinstance(part, ToolCallPart):
            text, same = part.arguments, last is not None and last.call_index == part.index
        else:
            text, same = part.text, last is not None and last.kind == kind
        if last is not None and same:
            last.texts.append(text)
            return last, False
        block = Block(kind, [text])
        if isinstance(part, ToolCallPart):
            block.call_index, block.call_id, block.name = part.index, part.call_id or "", part.name or ""
        self.blocks.append(block)
        return block, True

    def text_of(self, kind: BlockKind) -> str:
        """All text of one kind."""
        return "".join(block.text for block in self.blocks if block.kind == kind)

    @property
    def calls(self) -> list[Block]:
        """The calls of functions."""
        return [block for block in self.blocks if block.kind == "call"]
