"""POST /v1/completions."""

from __future__ import annotations

from typing import Any

from headrace.errors import InvalidField, UnsupportedField
from headrace.protocol.body import Body, read_body
from headrace.protocol.call import GenerationCall, Prompt
from headrace.protocol.kinds import Reading
from headrace.protocol.parse.chat import add_prompt_logprobs, response_format_guide
from headrace.protocol.parse.common import extras_of, guide_of, sampling_of
from headrace.protocol.shown import shown
from headrace.protocol.table.openai import COMPLETIONS

DEFAULT_MAX_TOKENS = 16


def parse_completions(body: Body, *, strict: bool = False) -> GenerationCall:
    """Read a body of POST /v1/completions.

    Args:
        body: bytes, or the object in them. strict: unknown fields are errors.

    Raises:
        InvalidRequest: one of its kinds, naming the field by its path.
    """
    reading = Reading(strict)
    given = read_body(body, COMPLETIONS, reading)
    n, best_of = given.get("n", 1), given.get("best_of")
    if best_of is not None and best_of != n:
        raise UnsupportedField("best_of", shown(best_of), f"the same as n, which is {n}")
    echo, max_tokens = given.get("echo", False), given.get("max_tokens", DEFAULT_MAX_TOKENS)
    if max_tokens == 0 and not echo:
        raise InvalidField("max_tokens", "0", "an integer of at least 1, or 0 with echo: true")
    sampling = sampling_of(given, max(max_tokens, 1), "max_tokens", given.get("stop"))
    _add_logprobs(given, sampling, echo)
    options = given.get("stream_options", {})
    return GenerationCall(
        endpoint="completions",
        prompts=_prompts(given["prompt"]),
        sampling=sampling,
        guide=guide_of(given, response_format_guide(given.get("response_format"))),
        include_usage=options.get("include_usage", False),
        continuous_usage=options.get("continuous_usage_stats", False),
        num_top_logprobs=given.get("logprobs"),
        echo=echo,
        prompt_only=max_tokens == 0,
        add_special_tokens=given.get("add_special_tokens", True),
        tokens_as_ids=given.get("return_tokens_as_token_ids", False),
        settings=given,
        ignored_fields=tuple(reading.ignored),
        **extras_of(given),
    )


def _add_logprobs(given: dict[str, Any], sampling: dict[str, Any], echo: bool) -> None:
    add_prompt_logprobs(given, sampling)
    if "logprobs" not in given:
        return
    sampling["logprobs"] = given["logprobs"]
    if echo:
        if given.get("stream", False):
            raise InvalidField("echo", "true", "false with stream and logprobs, or stream: false")
        sampling["prompt_logprobs"] = max(given["logprobs"], sampling.get("prompt_logprobs", 0))


def _prompts(given: Any) -> tuple[Prompt, ...]:
    if isinstance(given, list):
        return tuple(given)
    if isinstance(given, tuple) and not given:
        raise InvalidField("prompt", "[]", "text, token ids, or a list of texts or of lists of token ids")
    return (given,)
