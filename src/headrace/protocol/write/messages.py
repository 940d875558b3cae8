"""Answers of POST /v1/messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.protocol.call import GenerationCall
from headrace.protocol.error_body import error_body
from headrace.protocol.parts import Part
from headrace.protocol.sse import encode, named_frame
from headrace.protocol.write.answer import Answer, Block, TokenLogprob, Usage
from headrace.protocol.write.writer import Writer

_DELTAS = {
    "content": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


class MessagesWriter(Writer):
    """Events, or one message.

    ::

        message_start ─► block* ─► message_delta ─► message_stop
        block = content_block_start ─► content_block_delta* ─► content_block_stop
                one per run of text, of thinking, and per call

    Token ids, where they are wanted, are a field of the next delta that is sent, the last ones of message_delta.
    """

    def __init__(self, call: GenerationCall, response_id: str, created: int, model: str) -> None:
        """Nothing written yet."""
        super().__init__(call, response_id, created, model)
        self._around: tuple[bytes, bytes] = (b"", b"")
        self._unsent_token_ids: list[int] = []

    def _message(self, content: list[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        answer = self.answers[0]
        done = answer.finish_reason is not None
        return {
            "id": self.response_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": self._stop_reason(answer) if done else None,
            "stop_sequence": _stop_sequence(answer),
            "usage": usage,
        }

    def _write_start(self) -> bytes:
        usage = _usage(self.prompts[0].num_tokens, self.prompts[0].num_cached_tokens, 0)
        message = self._message([], usage)
        if self.call.return_token_ids:
            message["prompt_token_ids"] = self.prompts[0].token_ids
        return named_frame("message_start", {"type": "message_start", "message": message})

    def _write_parts(
        self, index: int, parts: Sequence[Part], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> bytes:
        answer, written = self.answers[index], b""
        if self.call.return_token_ids:
            self._unsent_token_ids += token_ids
        for part in parts:
            num_before = len(answer.blocks)
            block, is_new = answer.add(part)
            if is_new:
                written += self._close(num_before) + self._open(num_before, block)
            if block.texts[-1]:
                written += self._delta(len(answer.blocks) - 1, block)
            block.texts.clear()
        return written

    def _delta(self, place: int, block: Block) -> bytes:
        if not self._unsent_token_ids:
            before, after = self._around
            return before + encode(block.texts[-1]) + after
        kind, field = _DELTAS[block.kind]
        delta = {"type": "content_block_delta", "index": place, "delta": {"type": kind, field: block.texts[-1]}}
        return named_frame("content_block_delta", delta | self._take_token_ids())

    def _take_token_ids(self) -> dict[str, Any]:
        token_ids, self._unsent_token_ids = self._unsent_token_ids, []
        return {"token_ids": token_ids} if token_ids else {}

    def _open(self, index: int, block: Block) -> bytes:
        kind, field = _DELTAS[block.kind]
        delta = {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: ""}}
        before, after = named_frame("content_block_delta", delta).split(b'""')
        self._around = (before, after)
        start = {"type": "content_block_start", "index": index, "content_block": _empty(block)}
        return named_frame("content_block_start", start)

    def _close(self, num_blocks: int) -> bytes:
        if not num_blocks:
            return b""
        return named_frame("content_block_stop", {"type": "content_block_stop", "index": num_blocks - 1})

    def _write_finish(self, index: int, answer: Answer) -> bytes:
        return self._close(len(answer.blocks))

    def end(self, usage: Usage) -> bytes:
        """The reason of the end, and the usage."""
        answer = self.answers[0]
        delta = {"stop_reason": self._stop_reason(answer, usage), "stop_sequence": _stop_sequence(answer)}
        message_delta = {"type": "message_delta", "delta": delta, "usage": _usage_body(usage)} | self._take_token_ids()
        return named_frame("message_delta", message_delta) + named_frame("message_stop", {"type": "message_stop"})

    def error(self, error: BaseException, request_id: str | None = None) -> bytes:
        """An event of type error."""
        return named_frame("error", error_body(error, "anthropic", request_id).body)

    def body(self, usage: Usage) -> bytes:
        """A message."""
        answer = self.answers[0]
        message = self._message([_whole(block) for block in answer.blocks if _is_kept(block)], _usage_body(usage))
        message["stop_reason"] = self._stop_reason(answer, usage)
        if self.call.return_token_ids:
            message |= {"token_ids": answer.token_ids, "prompt_token_ids": self.prompts[0].token_ids}
        return encode(message)

    def _stop_reason(self, answer: Answer, usage: Usage | None = None) -> str:
        if answer.finish_reason == "length":
            most = self.call.sampling["max_tokens"]
            is_full = usage is not None and most is not None and usage.completion_tokens < most
            return "model_context_window_exceeded" if is_full else "max_tokens"
        if isinstance(answer.stop_reason, str):
            return "stop_sequence"
        return "tool_use" if answer.calls else "end_turn"


def _stop_sequence(answer: Answer) -> str | None:
    return answer.stop_reason if isinstance(answer.stop_reason, str) else None


def _usage_body(usage: Usage) -> dict[str, Any]:
    body = _usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    if usage.reasoning_tokens is not None:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return body


def _usage(prompt: int, cached: int, output: int) -> dict[str, Any]:
    """Anthropic counts cached tokens beside input_tokens, not in them."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }


def _empty(block: Block) -> dict[str, Any]:
    if block.kind == "content":
        return {"type": "text", "text": ""}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}


def _whole(block: Block) -> dict[str, Any]:
    if block.kind == "content":
        return {"type": "text", "text": block.text}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    return _empty(block) | {"input": _input(block.text)}


def _is_kept(block: Block) -> bool:
    return block.kind == "call" or any(block.texts)


def _input(text: str) -> dict[str, Any]:
    """Arguments as an object; what a model wrote that is none (it ran out of tokens, say) stands under "_raw"."""
    try:
        decoded = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {"_raw": text}
    return decoded if isinstance(decoded, dict) else {"_raw": text}
