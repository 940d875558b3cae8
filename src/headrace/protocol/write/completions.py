"""Answers of POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headrace.protocol.call import GenerationCall
from headrace.protocol.error_body import openai_error
from headrace.protocol.parts import ContentPart, Part, ReasoningPart
from headrace.protocol.sse import DONE, encode, frame
from headrace.protocol.write.answer import Answer, PromptInfo, TokenLogprob, Usage
from headrace.protocol.write.openai_shapes import prompt_logprobs_body, token_text, usage_body
from headrace.protocol.write.writer import Writer


class CompletionsWriter(Writer):
    """Chunks, or one text_completion. What is reasoning to others is text here: nothing is left out of it."""

    def __init__(self, call: GenerationCall, response_id: str, created: int, model: str) -> None:
        """Nothing written yet."""
        super().__init__(call, response_id, created, model)
        self._num_characters = [0] * call.num_choices
        self._is_plain = call.stream and not (
            call.continuous_usage or call.return_token_ids or call.num_top_logprobs is not None or call.prompt_only
        )
        marks = [frame(self._chunk(index, "")).split(b'"text":""') for index in range(call.num_choices)]
        self._around = [(b'"text":""'.join(mark[:-1]) + b'"text":', mark[-1]) for mark in marks]

    def _head(self) -> dict[str, Any]:
        return {"id": self.response_id, "object": "text_completion", "created": self.created, "model": self.model}

    def _chunk(self, index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "logprobs": None, "finish_reason": finish_reason, "text": text}
        chunk = self._head() | {"choices": [choice]}
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

    def skip_logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> None:
        """See Writer; the offsets go on behind them."""
        self._num_characters[index] += sum(token.num_characters for token in tokens)

    def _write_start(self) -> bytes:
        written = b""
        for index in range(self.call.num_choices):
            prompt = self.prompts[index // self.call.n]
            if not self.call.echo and not self.call.return_token_ids:
                continue
            chunk = self._chunk(index, prompt.text if self.call.echo else "")
            if self.call.return_token_ids:
                chunk["choices"][0]["prompt_token_ids"] = prompt.token_ids
            written += frame(chunk)
        return written

    def _write_parts(
        self, index: int, parts: Sequence[Part], token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
    ) -> bytes:
        text = "".join(part.text for part in parts if isinstance(part, ContentPart | ReasoningPart))
        if not text and (self._is_plain or not token_ids):
            return b""
        chunk = self._chunk(index, text)
        choice = chunk["choices"][0]
        if self.call.return_token_ids:
            choice["token_ids"] = token_ids
        if self.call.num_top_logprobs is not None:
            choice["logprobs"] = self._logprobs(logprobs, self._num_characters[index])
            self._num_characters[index] += sum(token.num_characters for token in logprobs)
        return frame(chunk)

    def _write_finish(self, index: int, answer: Answer) -> bytes:
        chunk = self._chunk(index, "", answer.finish_reason)
        chunk["choices"][0]["stop_reason"] = answer.stop_reason
        return frame(chunk)

    def end(self, usage: Usage) -> bytes:
        """The usage where it is wanted, and [DONE]."""
        if not self.call.include_usage:
            return DONE
        return frame(self._head() | {"choices": [], "usage": usage_body(self._counted(usage))}) + DONE

    def error(self, error: BaseException, request_id: str | None = None) -> bytes:
        """Without [DONE]: the stream did not come to its end."""
        return frame({"error": openai_error(error, request_id)})

    def body(self, usage: Usage) -> bytes:
        """A text_completion."""
        choices = [self._choice(index, answer) for index, answer in enumerate(self.answers)]
        return encode(self._head() | {"choices": choices, "usage": usage_body(self._counted(usage))})

    def _counted(self, usage: Usage) -> Usage:
        return Usage(usage.prompt_tokens, 0, usage.cached_tokens) if self.call.prompt_only else usage

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        prompt = self.prompts[index // self.call.n]
        text = "".join(block.text for block in answer.blocks)
        choice: dict[str, Any] = {
            "index": index,
            "text": prompt.text + text if self.call.echo else text,
            "logprobs": None,
            "finish_reason": answer.finish_reason or "stop",
            "stop_reason": answer.stop_reason,
        }
        given = answer.prompt_logprobs
        if self.call.num_top_logprobs is not None:
            choice["logprobs"] = self._logprobs(answer.logprobs, len(prompt.text) if self.call.echo else 0)
            if self.call.echo and given is not None:
                echoed = self._echoed(prompt, given)
                choice["logprobs"] = {name: echoed[name] + values for name, values in choice["logprobs"].items()}
        if given is not None and "prompt_logprobs" in self.call.settings:
            num_top = self.call.settings["prompt_logprobs"]
            choice["prompt_logprobs"] = prompt_logprobs_body(given, num_top, self.call.tokens_as_ids)
        if self.call.return_token_ids:
            choice |= {"token_ids": answer.token_ids, "prompt_token_ids": prompt.token_ids}
        return choice

    def _echoed(self, prompt: PromptInfo, given: Sequence[TokenLogprob | None]) -> dict[str, list[Any]]:
        """Of the prompt, whose first token has no log-probability."""
        assert prompt.first is not None
        lists = self._logprobs([token for token in given if token is not None], prompt.first.num_characters)
        text = token_text(prompt.first, self.call.tokens_as_ids)
        firsts: dict[str, Any] = {"text_offset": 0, "token_logprobs": None, "tokens": text, "top_logprobs": None}
        return {name: [firsts[name], *values] for name, values in lists.items()}

    def _logprobs(self, logprobs: Iterable[TokenLogprob], offset: int) -> dict[str, list[Any]]:
        """Four lists side by side.

        Offsets count characters of the tokens' own texts from `offset` on; a token of further bytes has the offset of
        the character that they belong to.
        """
        as_ids, num_top = self.call.tokens_as_ids, self.call.num_top_logprobs or 0
        lists: dict[str, list[Any]] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token in logprobs:
            lists["text_offset"].append(max(offset - token.goes_on, 0))
            lists["token_logprobs"].append(token.logprob)
            lists["tokens"].append(token_text(token, as_ids))
            known = {token_text(other, as_ids): other.logprob for other in (*token.top[:num_top], token)}
            lists["top_logprobs"].append(known)
            offset += token.num_characters
        return lists
