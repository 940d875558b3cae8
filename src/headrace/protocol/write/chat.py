"""Answers of POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.protocol.call import GenerationCall
from headrace.protocol.error_body import openai_error
from headrace.protocol.parts import ContentPart, Part, ReasoningPart, ToolCallPart
from headrace.protocol.sse import DONE, encode, frame
from headrace.protocol.write.answer import Answer, TokenLogprob, Usage
from headrace.protocol.write.openai_shapes import chat_logprobs_body, prompt_logprobs_body, usage_body
from headrace.protocol.write.writer import Writer


class ChatWriter(Writer):
    """Chunks, or one chat.completion.

    A chunk of plain text is most of what a server sends: all but the text is encoded once per choice.
    """

    def __init__(self, call: GenerationCall, response_id: str, created: int, model: str) -> None:
        """Nothing written yet."""
        super().__init__(call, response_id, created, model)
        self._has_calls = [False] * call.num_choices
        self._is_plain = call.stream and not (
            call.continuous_usage or call.return_token_ids or call.num_top_logprobs is not None
        )
        marks = [frame(self._chunk(index, {"content": ""})).split(b'""') for index in range(call.num_choices)]
        self._around = [(b'""'.join(mark[:-1]), mark[-1]) for mark in marks]

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.response_id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = self._head("chat.completion.chunk") | {"choices": [choice]}
        if self.call.include_usage or self.call.continuous_usage:
            chunk["usage"] = self._usage_so_far() if self.call.continuous_usage else None
        return chunk

    def _usage_so_far(self) -> dict[str, Any]:
        prompt, cached = sum(p.num_tokens for p in self.prompts), sum(p.num_cached_tokens for p in self.prompts)
        return usage_body(Usage(prompt, self.num_output_tokens, cached))

    def parts(
        self,
        index: int,
        parts: Sequence[Part],
        token_ids: Sequence[int] = (),
        logprobs: Sequence[TokenLogprob] = (),
    ) -> bytes:
        """More of one choice; see Writer."""
        if self._is_plain and len(parts) == 1 and type(parts[0]) is ContentPart:
            before, after = self._around[index]
            return before + encode(parts[0][0]) + after
        return super().parts(index, parts, token_ids, logprobs)

    def _write_start(self) -> bytes:
        written = b""
        for index in range(self.call.num_choices):
            chunk = self._chunk(index, {"role": "assistant", "content": ""})
            if self.call.return_token_ids:
                chunk["prompt_token_ids"] = self.prompts[0].token_ids
            written += frame(chunk)
        return written

    def _write_parts(
        self, index: int, parts: Sequence[Part], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> bytes:
        deltas = [self._delta(index, part) for part in parts]
        if not deltas and token_ids and not self._is_plain:
            deltas = [{}]
        chunks = [self._chunk(index, delta) for delta in deltas]
        if chunks and self.call.return_token_ids:
            chunks[0]["choices"][0]["token_ids"] = token_ids
        if chunks and self.call.num_top_logprobs is not None:
            content = chat_logprobs_body(logprobs, self.call.tokens_as_ids)
            chunks[0]["choices"][0]["logprobs"] = {"content": content, "refusal": None}
        return b"".join(map(frame, chunks))

    def _delta(self, index: int, part: Part) -> dict[str, Any]:
        if isinstance(part, ToolCallPart):
            self._has_calls[index] = True
            function = {"arguments": part.arguments}
            if part.name is None:
                return {"tool_calls": [{"index": part.index, "function": function}]}
            function = {"name": part.name} | function
            return {"tool_calls": [{"index": part.index, "id": part.call_id, "type": "function", "function": function}]}
        if isinstance(part, ReasoningPart):
            return {"reasoning_content": part.text, "reasoning": part.text}
        return {"content": part.text}

    def _write_finish(self, index: int, answer: Answer) -> bytes:
        reason = _finish_reason(answer, self._has_calls[index])
        chunk = self._chunk(index, {}, reason)
        chunk["choices"][0]["stop_reason"] = answer.stop_reason
        return frame(chunk)

    def end(self, usage: Usage) -> bytes:
        """The usage where it is wanted, and [DONE]."""
        if not self.call.include_usage:
            return DONE
        return frame(self._head("chat.completion.chunk") | {"choices": [], "usage": usage_body(usage)}) + DONE

    def error(self, error: BaseException, request_id: str | None = None) -> bytes:
        """Without [DONE]: the stream did not come to its end."""
        return frame({"error": openai_error(error, request_id)})

    def body(self, usage: Usage) -> bytes:
        """A chat.completion."""
        body = self._head("chat.completion") | {
            "choices": [self._choice(index, answer) for index, answer in enumerate(self.answers)],
            "usage": usage_body(usage),
        }
        first = self.answers[0]
        if first.prompt_logprobs is not None:
            num_top = self.call.sampling["prompt_logprobs"]
            body["prompt_logprobs"] = prompt_logprobs_body(first.prompt_logprobs, num_top, self.call.tokens_as_ids)
        if self.call.return_token_ids:
            body["prompt_token_ids"] = self.prompts[0].token_ids
        return encode(body)

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        calls, content = answer.calls, answer.text_of("content")
        message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
        reasoning = answer.text_of("reasoning")
        if reasoning:
            message |= {"reasoning_content": reasoning, "reasoning": reasoning}
        if calls:
            message["tool_calls"] = [
                {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
                for call in calls
            ]
        logprobs = None
        if self.call.num_top_logprobs is not None:
            logprobs = {"content": chat_logprobs_body(answer.logprobs, self.call.tokens_as_ids), "refusal": None}
        choice = {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": _finish_reason(answer, bool(calls)),
            "stop_reason": answer.stop_reason,
        }
        if self.call.return_token_ids:
            choice["token_ids"] = answer.token_ids
        return choice


def _finish_reason(answer: Answer, has_calls: bool) -> str:
    return "tool_calls" if has_calls and answer.finish_reason == "stop" else answer.finish_reason or "stop"
