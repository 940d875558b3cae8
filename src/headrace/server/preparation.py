"""From a call to requests that the engine takes: text to tokens, the model's defaults, guides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headrace.engine.intake import sequence_seed
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
        requests: in the order of the choices; None for one that another server has brought to its end.
        prompts: what writers want to know of each.
        params: how it is sampled. tails: the end of each prompt's text.
        seed: that all draws come from; None: each prompt has one of its own.
    """

    requests: tuple[Request | None, ...]
    prompts: tuple[PromptInfo, ...]
    params: SamplingParams
    tails: tuple[str, ...]
    seed: int | None

    @property
    def live_requests(self) -> list[Request]:
        """Those that the engine is to run."""
        return [request for request in self.requests if request is not None]

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(prompt.num_tokens for prompt in self.prompts)

    @property
    def num_queue_tokens(self) -> int:
        """What it adds to the queue: each sequence waits with its whole prompt."""
        return sum(request.num_tokens for request in self.live_requests)


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

    async def prepare(self, call: GenerationCall, request_id: str, seed: int | None = None) -> Prepared:
        """Encode and check a call; a long one in a thread.

        Args:
            call: to prepare. request_id: of it. seed: to draw from where the call has none; None: the engine's choice.

        Raises:
            InvalidRequest: one of its kinds.
        """
        params = SamplingParams(**(self._defaults | call.sampling))
        spec = await guide_spec(call, self.encoder)
        if spec is not None:
            params = replace(params, guide=spec)
        size = sum(num_characters(_content(prompt)) for prompt in call.prompts)
        name = f"{request_id}.{next(self._numbers)}"  # a client may give the same id to several requests
        return await self.encoder.in_time(size, lambda: self._prepare(call, params, name, seed))

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

    def _prepare(self, call: GenerationCall, params: SamplingParams, name: str, seed: int | None) -> Prepared:
        requests: list[Request | None] = []
        prompts: list[PromptInfo] = []
        tails: list[str] = []
        for place, prompt in enumerate(call.prompts):
            ids, text = self._encoded(prompt, call.add_special_tokens)
            own_name = name if len(call.prompts) == 1 else f"{name}.{place}"
            # A client's seed is that of every prompt; one that is drawn would make equal prompts' answers equal.
            drawn = None if seed is None or params.seed is not None else sequence_seed(seed, place * call.n)
            requests += self._requests(call, ids, params, own_name, drawn, place)
            if call.echo and text is None:
                text = self.encoder.tokenizer.decode(ids, skip_special_tokens=call.skip_special_tokens)
            has_ids = call.return_token_ids or (call.echo and call.num_top_logprobs is not None)
            shown = (tuple(ids) if has_ids else (), (text or "") if call.echo else "")
            prompts.append(PromptInfo(len(ids), 0, *shown))
            tails.append((text or "")[-_TAIL_CHARACTERS:])
        return Prepared(
            tuple(requests), tuple(prompts), params, tuple(tails), seed if params.seed is None else params.seed
        )

    def _requests(
        self, call: GenerationCall, ids: list[int], params: SamplingParams, name: str, seed: int | None, place: int
    ) -> list[Request | None]:
        """The sequences of one prompt."""
        make = partial(
            self._engine.intake.requests,
            ids,
            cache_salt=call.cache_salt,
            queue_timeout_s=self._queue_timeout_s,
            priority=call.priority,
        )
        if call.continuation is None:
            return [*make(params, name, seed=seed)]
        first = seed if seed is not None else params.seed
        alone = replace(params, n=1)
        requests: list[Request | None] = []
        for number in range(call.n):
            begun = call.continuation.choice(place * call.n + number)
            self.encoder.check_range(begun.token_ids)
            own_seed = None if first is None else sequence_seed(first, number)
            own_name = name if call.n == 1 else f"{name}#{number}"
            is_over = begun.finish_reason is not None
            requests += [None] if is_over else make(alone, own_name, seed=own_seed, output_token_ids=begun.token_ids)
        return requests

    def _encoded(self, prompt: Prompt, add_special_tokens: bool) -> tuple[list[int], str | None]:
        if isinstance(prompt, str):
            return self.encoder.encode(prompt, add_special_tokens=add_special_tokens), prompt
        if isinstance(prompt, Conversation):
            text = self.encoder.render_conversation(prompt)
            return self.encoder.encode(text, add_special_tokens=False), text
        return list(prompt), None


def _content(prompt: Prompt) -> Any:
    return (prompt.messages, prompt.tools) if isinstance(prompt, Conversation) else prompt
