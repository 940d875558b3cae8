"""Shapes that OpenAI's chat and completions share, with vLLM's additions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.protocol.write.answer import TokenLogprob, Usage


def usage_body(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage; reasoning tokens only where they are known."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens is not None:
        body["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return body


def token_text(token: TokenLogprob, as_id: bool) -> str:
    """How a token is written in log-probabilities."""
    return f"token_id:{token.token_id}" if as_id else token.text


def chat_logprobs_body(logprobs: Iterable[TokenLogprob], as_ids: bool = False) -> list[dict[str, Any]]:
    """logprobs.content of chat, and the logprobs of responses."""
    return [{**_one(token, as_ids), "top_logprobs": [_one(other, as_ids) for other in token.top]} for token in logprobs]


def _one(token: TokenLogprob, as_id: bool) -> dict[str, Any]:
    return {"token": token_text(token, as_id), "logprob": token.logprob, "bytes": list(token.data)}


def prompt_logprobs_body(
    logprobs: Iterable[TokenLogprob | None], num_top: int, as_ids: bool = False
) -> list[dict[str, Any] | None]:
    """As vLLM writes prompt_logprobs: per token an object from token ids to what is known of them."""
    rows: list[dict[str, Any] | None] = []
    for token in logprobs:
        if token is None:
            rows.append(None)
            continue
        rows.append(
            {
                str(known.token_id): {
                    "logprob": known.logprob,
                    "rank": known.rank if known.rank is not None else place,
                    "decoded_token": token_text(known, as_ids),
                }
                for place, known in enumerate((token, *token.top[:num_top]))
            }
        )
    return rows
