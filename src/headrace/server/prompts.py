"""Prompts to token ids, without holding the event loop up: what takes long is done in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from headrace.errors import PromptTooLong, TokenOutOfRange
from headrace.protocol.call import Conversation
from headrace.text import Tokenizer

Result = TypeVar("Result")

_INLINE_CHARACTERS = 4_000
"""A text of this length takes about two milliseconds; a thread for it would cost more than it saves."""

_CHARACTERS_PER_TOKEN = 8
_SLACK_TOKENS = 64


class PromptEncoder:
    """Encodes texts and conversations for one model.

    Args:
        tokenizer: of the model. vocab_size: ids are below it. max_model_len: most tokens of a request.
        threads: for long texts; they take turns, so that many long prompts do not starve the engine of its core.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, max_model_len: int, threads: ThreadPoolExecutor) -> None:
        """Ready."""
        self.tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self._threads = threads

    async def in_time(self, num_characters: int, work: Callable[[], Result]) -> Result:
        """Do work that goes through so many characters, in a thread if that is long."""
        return work() if num_characters <= _INLINE_CHARACTERS else await self.in_thread(work)

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do work in a thread, however short."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text; PromptTooLong without going through all of one that is far too long."""
        ahead = _CHARACTERS_PER_TOKEN * (self._max_model_len + _SLACK_TOKENS)
        if len(text) > 2 * ahead:
            num_tokens = len(self.tokenizer.encode(text[:ahead], add_special_tokens=False))
            # The cut may make a few tokens of one; a text goes on from there, it does not get shorter.
            if num_tokens > self._max_model_len + _SLACK_TOKENS:
                raise PromptTooLong(
                    f"the prompt has {len(text)} characters, the first {ahead} of them more than {num_tokens - 1} "
                    f"tokens; {self._max_model_len - 1} leave room for an answer (max_model_len={self._max_model_len})"
                ).with_hint(f"at most {self._max_model_len - 1} tokens")
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def check_range(self, token_ids: Sequence[int]) -> None:
        """Raises TokenOutOfRange for ids that the model does not have."""
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self._vocab_size:
            wrong = next(token for token in token_ids if not 0 <= token < self._vocab_size)
            allowed = f"0 to {self._vocab_size - 1}"
            raise TokenOutOfRange(f"token id {wrong} is out of range: the model has ids {allowed}").with_hint(allowed)

    def render_conversation(self, conversation: Conversation) -> str:
        """Text of a conversation by the model's template, special tokens written out."""
        return self.tokenizer.render_chat(
            conversation.messages,
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            tools=conversation.tools or None,
            template_kwargs=conversation.chat_template_kwargs,
        )


def num_characters(value: Any) -> int:
    """About how much text there is in a value of JSON: what going through it takes."""
    todo, total = [value], 0
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, Mapping):
            todo.extend(item.values())
            total += len(item)
        elif isinstance(item, Sequence) and not isinstance(item, bytes | bytearray):
            total += len(item)
            if item and not isinstance(item[0], int):
                todo.extend(item)
    return total
