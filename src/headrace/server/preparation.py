"""From a call to requests that the engine takes: text to tokens, the model's defaults, guides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from headrace.engine.remote import EngineLink
from headrace.engine.request import Request
from headrace.engine.sampling_params import SamplingParams
from headrace.protocol.call import Conversation, GenerationCall, Prompt
from headrace.protocol.write import PromptInfo
from headrace.server.guides import guide_spec
from headrace.server.prompts import PromptEncoder, num_characters
from headrace.text.answers import AnswerFormat, AnswerParser

_TAIL_CHARACTERS = 256
"""How much of a prompt's end tells whether the template has begun the answer."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that may be submitted.

    Attributes:
        requests: in the order of the choices. prompts: what writers want to know of each.
        params: how it is sampled. tails: the end of each prompt's text.
    """

    requests: tuple[Request, ...]
    prompts: tuple[PromptInfo, ...]
    params: SamplingParams
    tails: tuple[str, ...]

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(prompt.num_tokens for prompt in self.prompts)

    @property
    def num_queue_tokens(self) -> int:
        """What it adds to the queue: each sequence waits with its whole prompt."""
        return sum(request.num_prompt_tokens for request in self.requests)


class Preparation:
    """Prepares the calls of one model.

    Args:
        encoder: of its tokenizer. engine: makes its requests. defaults: fields of SamplingParams by the model's makers.
        answer_format: how it writes. queue_timeout_s: most seconds in the queue.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        engine: EngineLink,
        defaults: dict[str, Any],
        answer_format: AnswerFormat,
        queue_timeout_s: float | None,
    ) -> None:
        """Ready."""
        self.encoder = encoder
        self.answer_format = answer_format
        self._engine = engine
        self._defaults = defaults
        self._queue_timeout_s = queue_timeout_s
        self._numbers: Iterator[int] = itertools.count()

    async def prepare(self, call: GenerationCall, request_id: str) -> Prepared:
        """Encode and check a call; a long one in a thread.

        Raises:
            InvalidRequest: one of its kinds.
        """
        params = SamplingParams(**(self._defaults | call.sampling))
        spec = await guide_spec(call, self.encoder)
        if spec is not None:
            params = replace(params, guide=spec)
        size = sum(num_characters(_content(prompt)) for prompt in call.prompts)
        name = f"{request_id}.{next(self._numbers)}"  # a client may give the same id to several requests
        return await self.encoder.in_time(size, lambda: self._prepare(call, params, name))

    def parser(self, call: GenerationCall, tail: str, new_id: Callable[[int], str]) -> AnswerParser:
        """Reads one answer."""
        is_chat = isinstance(call.prompts[0], Conversation)
        return AnswerParser(
            self.answer_format if is_chat and call.guide is None else AnswerFormat(),
            prompt_tail=tail,
            tools=call.tools,
            choice=call.tool_choice,
            new_id=new_id,
        )

    def _prepare(self, call: GenerationCall, params: SamplingParams, name: str) -> Prepared:
        requests: list[Request] = []
        prompts: list[PromptInfo] = []
        tails: list[str] = []
        intake = self._engine.intake
        for place, prompt in enumerate(call.prompts):
            ids, text = self._encoded(prompt, call.add_special_tokens)
            requests += intake.requests(
                ids,
                params,
                name if len(call.prompts) == 1 else f"{name}.{place}",
                cache_salt=call.cache_salt,
                queue_timeout_s=self._queue_timeout_s,
                priority=call.priority,
            )
            if call.echo and text is None:
                text = self.encoder.tokenizer.decode(ids, skip_special_tokens=call.skip_special_tokens)
            shown = (tuple(ids) if call.return_token_ids else (), (text or "") if call.echo else "")
            prompts.append(PromptInfo(len(ids), 0, *shown))
            tails.append((text or "")[-_TAIL_CHARACTERS:])
        return Prepared(tuple(requests), tuple(prompts), params, tuple(tails))

    def _encoded(self, prompt: Prompt, add_special_tokens: bool) -> tuple[list[int], str | None]:
        if isinstance(prompt, str):
            return self.encoder.encode(prompt, add_special_tokens=add_special_tokens), prompt
        if isinstance(prompt, Conversation):
            text = self.encoder.render_conversation(prompt)
            return self.encoder.encode(text, add_special_tokens=False), text
        return list(prompt), None


def _content(prompt: Prompt) -> Any:
    return (prompt.messages, prompt.tools) if isinstance(prompt, Conversation) else prompt
