"""What every writer does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from headrace.protocol.call import FinishReason, GenerationCall, GenerationEndpoint
from headrace.protocol.parts import Part, ReasoningPart, ToolCallPart
from headrace.protocol.write.answer import Answer, PromptInfo, TokenLogprob, Usage

_PREFIXES = {"chat": "chatcmpl-", "completions": "cmpl-", "messages": "msg_", "responses": "resp_"}


def new_response_id(endpoint: GenerationEndpoint, unique: str) -> str:
    """An id such as the clients of the endpoint expect, around letters that are used once."""
    return _PREFIXES[endpoint] + unique


class Writer(ABC):
    """Writes one request's answers; a state machine without a clock or I/O.

    ::

        streaming       start ─► parts* ─► finish_choice ─► … ─► end          each returns bytes to send, maybe none
                          └────────┴────────────┴──► error                     sent last
        not streaming   start ─► parts* ─► finish_choice ─► … ─► body         the others return nothing

    Args:
        call: what was asked. response_id: from `new_response_id`. created: seconds since 1970.
        model: the name that the answer says.
    """

    def __init__(self, call: GenerationCall, response_id: str, created: int, model: str) -> None:
        """Nothing written yet."""
        self.call = call
        self.response_id = response_id
        self.created = created
        self.model = model
        self.prompts: tuple[PromptInfo, ...] = ()
        self.answers = [Answer() for _ in range(call.num_choices)]
        self.num_output_tokens = 0

    def start(self, prompts: Sequence[PromptInfo]) -> bytes:
        """The request runs; best called with its first tokens, when the cached ones are known and errors are past."""
        self.prompts = tuple(prompts)
        return self._write_start() if self.call.stream else b""

    def parts(
        self,
        index: int,
        parts: Sequence[Part],
        token_ids: Sequence[int] = (),
        logprobs: Sequence[TokenLogprob] = (),
    ) -> bytes:
        """More of one choice.

        Args:
            index: of the choice. parts: may be none, where tokens gave no text yet.
            token_ids: generated since the last call. logprobs: of these, where call.num_top_logprobs is not None.
        """
        if self.call.prompt_only:
            return b""
        self.num_output_tokens += len(token_ids)
        if not self.call.include_reasoning:
            parts = [part for part in parts if type(part) is not ReasoningPart]
        if not self.call.tool_choice.parallel:
            parts = [part for part in parts if not isinstance(part, ToolCallPart) or part.index == 0]
        if self.call.stream:
            return self._write_parts(index, parts, token_ids, logprobs)
        answer = self.answers[index]
        for part in parts:
            answer.add(part)
            self._added(index, part)
        answer.token_ids += token_ids
        answer.logprobs += logprobs
        return b""

    def _added(self, index: int, part: Part) -> None:  # noqa: B027 - of most writers nothing
        """A part of an answer that is not streamed was added to it."""

    def skip_logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> None:  # noqa: B027 - of most writers nothing
        """Tokens of a choice were given out by another server: their log-probabilities are not known here.

        Args:
            index: of the choice. tokens: one by one, with any log-probability.
        """

    def finish_choice(
        self,
        index: int,
        finish_reason: FinishReason,
        stop_reason: int | str | None = None,
        prompt_logprobs: Sequence[TokenLogprob | None] | None = None,
    ) -> bytes:
        """A choice is complete.

        Args:
            index: of the choice. finish_reason: of the engine. stop_reason: the stop string or stop token id.
            prompt_logprobs: where call.sampling asks for them; None for the first token.
        """
        answer = self.answers[index]
        answer.finish_reason = "length" if self.call.prompt_only else finish_reason
        answer.stop_reason = None if self.call.prompt_only else stop_reason
        answer.prompt_logprobs = prompt_logprobs
        return self._write_finish(index, answer) if self.call.stream else b""

    @abstractmethod
    def _write_start(self) -> bytes: ...

    @abstractmethod
    def _write_parts(
        self, index: int, parts: Sequence[Part], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> bytes: ...

    @abstractmethod
    def _write_finish(self, index: int, answer: Answer) -> bytes: ...

    @abstractmethod
    def end(self, usage: Usage) -> bytes:
        """All choices are complete: the end of the stream."""

    @abstractmethod
    def error(self, error: BaseException, request_id: str | None = None) -> bytes:
        """The request failed after bytes were sent: the end of the stream."""

    @abstractmethod
    def body(self, usage: Usage) -> bytes:
        """All choices are complete: the whole answer as JSON."""
