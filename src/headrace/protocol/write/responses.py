"""Answers of POST /v1/responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.protocol.call import GenerationCall
from headrace.protocol.error_body import error_body, message_of, param_of
from headrace.protocol.parts import ContentPart, Part
from headrace.protocol.sse import encode, named_frame
from headrace.protocol.write.answer import Answer, Block, TokenLogprob, Usage
from headrace.protocol.write.openai_shapes import chat_logprobs_body
from headrace.protocol.write.response_body import item_body, item_id, part_body, response_body
from headrace.protocol.write.writer import Writer

_DELTA_EVENTS = {
    "content": "response.output_text.delta",
    "reasoning": "response.reasoning_text.delta",
    "call": "response.function_call_arguments.delta",
}


class ResponsesWriter(Writer):
    """Events, or one response.

    ::

        response.created ─► response.in_progress ─► item* ─► response.completed | response.incomplete
                             └───────────────────────┴────► error ─► response.failed
        item  = output_item.added ─► content_part.added ─► …delta* ─► …done ─► content_part.done ─► output_item.done
                (calls have no content parts); one per run of text, of reasoning, and per call

    Token ids, where they are wanted, are a field of the next delta that is sent, the last ones of the response.
    """

    def __init__(self, call: GenerationCall, response_id: str, created: int, model: str) -> None:
        """Nothing written yet."""
        super().__init__(call, response_id, created, model)
        self._sequence_number = -1
        self._around: tuple[bytes, bytes, bytes] = (b"", b"", b"")
        self._block_logprobs: list[list[dict[str, Any]]] = []
        self._waiting_logprobs: list[dict[str, Any]] = []  # of tokens whose text is not final yet, or that have none
        self._unsent_token_ids: list[int] = []

    # ---------------------------------------------------------------- events

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self._sequence_number += 1
        return named_frame(name, {"type": name, "sequence_number": self._sequence_number, **fields})

    def _response(self, status: str, usage: Usage | None = None, error: dict[str, Any] | None = None) -> dict[str, Any]:
        body = response_body(self.call, self.response_id, self.created, self.model, status)
        body["output"] = self._items(status) if status != "in_progress" else []
        return body | {"usage": None if usage is None else _usage(usage), "error": error}

    def _items(self, status: str) -> list[dict[str, Any]]:
        answer = self.answers[0]
        last = len(answer.blocks) - 1
        return [
            item_body(
                self.response_id,
                place,
                block,
                "incomplete" if place == last and status != "completed" else "completed",
                self._block_logprobs[place] if place < len(self._block_logprobs) else [],
            )
            for place, block in enumerate(answer.blocks)
        ]

    def _write_start(self) -> bytes:
        response = self._response("in_progress")
        if self.call.return_token_ids:
            response["prompt_token_ids"] = self.prompts[0].token_ids
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def parts(
        self,
        index: int,
        parts: Sequence[Part],
        token_ids: Sequence[int] = (),
        logprobs: Sequence[TokenLogprob] = (),
    ) -> bytes:
        """More of the answer; see Writer."""
        if self.call.num_top_logprobs is not None:
            self._waiting_logprobs += chat_logprobs_body(logprobs)
        written = super().parts(index, parts, token_ids, logprobs)
        if parts and self._waiting_logprobs:
            self._give_logprobs(None)
        return written

    def _added(self, index: int, part: Part) -> None:
        if isinstance(part, ContentPart):
            self._give_logprobs(len(self.answers[index].blocks) - 1)

    def _give_logprobs(self, place: int | None) -> list[dict[str, Any]]:
        """Those that wait go to an item, which carries the log-probabilities of its own text; None: to no item."""
        given, self._waiting_logprobs = self._waiting_logprobs, []
        if place is None:
            return []
        while len(self._block_logprobs) <= place:
            self._block_logprobs.append([])
        self._block_logprobs[place] += given
        return given

    def _write_parts(
        self, index: int, parts: Sequence[Part], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> bytes:
        answer, written = self.answers[index], b""
        if self.call.return_token_ids:
            self._unsent_token_ids += token_ids
        for part in parts:
            place = len(answer.blocks) - 1
            block, is_new = answer.add(part)
            if is_new:
                written += self._close(place, "completed")
                place += 1
                written += self._open(place, block)
            is_told = self._waiting_logprobs and isinstance(part, ContentPart)
            known = self._give_logprobs(place) if is_told else []
            if known or block.texts[-1]:
                written += self._delta(place, block, known)
        return written

    def _delta(self, place: int, block: Block, logprobs: list[dict[str, Any]]) -> bytes:
        if logprobs or self._unsent_token_ids:
            more = {"logprobs": logprobs} if block.kind == "content" else {}
            delta = self._where(place, block) | more | self._take_token_ids() | {"delta": block.texts[-1]}
            return self._event(_DELTA_EVENTS[block.kind], **delta)
        self._sequence_number += 1
        before, between, after = self._around
        return before + b"%d" % self._sequence_number + between + encode(block.texts[-1]) + after

    def _take_token_ids(self) -> dict[str, Any]:
        token_ids, self._unsent_token_ids = self._unsent_token_ids, []
        return {"token_ids": token_ids} if token_ids else {}

    def _where(self, place: int, block: Block) -> dict[str, Any]:
        where = {"item_id": item_id(self.response_id, place, block.kind), "output_index": place}
        return where if block.kind == "call" else {**where, "content_index": 0}

    def _open(self, place: int, block: Block) -> bytes:
        empty = Block(block.kind, [], block.call_index, block.call_id, block.name)
        item = item_body(self.response_id, place, empty, "in_progress")
        if block.kind != "call":
            item["content"] = []
        written = self._event("response.output_item.added", output_index=place, item=item)
        where = self._where(place, block)
        if block.kind != "call":
            written += self._event("response.content_part.added", **where, part=part_body(empty))
        name = _DELTA_EVENTS[block.kind]
        mark: dict[str, Any] = {"type": name, "sequence_number": 0, **where}
        if block.kind == "content":
            mark["logprobs"] = []
        frame = named_frame(name, {**mark, "delta": ""})
        before, rest = frame.split(b'"sequence_number":0', 1)
        between, after = rest.rsplit(b'""', 1)
        self._around = (before + b'"sequence_number":', between, after)
        return written

    def _close(self, place: int, status: str) -> bytes:
        if place < 0:
            return b""
        block = self.answers[0].blocks[place]
        text, where = block.text, self._where(place, block)
        block.texts[:] = [text]
        logprobs = self._block_logprobs[place] if place < len(self._block_logprobs) else []
        if block.kind == "call":
            written = self._event("response.function_call_arguments.done", **where, name=block.name, arguments=text)
        else:
            if block.kind == "content":
                written = self._event("response.output_text.done", **where, text=text, logprobs=logprobs)
            else:
                written = self._event("response.reasoning_text.done", **where, text=text)
            written += self._event("response.content_part.done", **where, part=part_body(block, logprobs))
        item = item_body(self.response_id, place, block, status, logprobs)
        return written + self._event("response.output_item.done", output_index=place, item=item)

    def _write_finish(self, index: int, answer: Answer) -> bytes:
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        place, written = len(answer.blocks) - 1, b""
        if self._waiting_logprobs and place >= 0 and answer.blocks[place].kind == "content":
            answer.blocks[place].texts.append("")
            written = self._delta(place, answer.blocks[place], self._give_logprobs(place))
        return written + self._close(place, status)

    # ---------------------------------------------------------------- the end

    def _status(self) -> str:
        return "incomplete" if self.answers[0].finish_reason == "length" else "completed"

    def end(self, usage: Usage) -> bytes:
        """The whole response."""
        status = self._status()
        return self._event(f"response.{status}", response=self._response(status, usage) | self._take_token_ids())

    def error(self, error: BaseException, request_id: str | None = None) -> bytes:
        """An event of type error, and the response as far as it came."""
        answer = error_body(error, "openai", request_id)
        code = "rate_limit_exceeded" if answer.status == 429 else "server_error"
        details = answer.body["error"]
        event = self._event(
            "error",
            code=details["code"],
            message=message_of(error),
            param=param_of(error),
            hint=details["hint"],
            request_id=request_id,
        )
        failed = self._response("failed", None, {"code": code, "message": message_of(error)})
        return event + self._event("response.failed", response=failed)

    def body(self, usage: Usage) -> bytes:
        """A response."""
        blocks = self.answers[0].blocks
        if blocks and blocks[-1].kind == "content":
            self._give_logprobs(len(blocks) - 1)
        body = self._response(self._status(), usage)
        if self.call.return_token_ids:
            body |= {"token_ids": self.answers[0].token_ids, "prompt_token_ids": self.prompts[0].token_ids}
        return encode(body)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
