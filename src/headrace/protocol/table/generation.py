"""Fields that every endpoint that generates has."""

from __future__ import annotations

from headrace.protocol.fields import Field, Object, informational, unsupported
from headrace.protocol.kinds import (
    Boolean,
    Either,
    Integer,
    Json,
    ListOf,
    LogitBias,
    Number,
    OneOf,
    Text,
    TokenIds,
)

MAX_LOGPROBS = 20
MAX_N = 1024

MODEL = Field("model", Text(), "A name that is served here; the server's own model where it is missing.")
STREAM = Field("stream", Boolean(), "Send the answer while it is made, as server-sent events.")
STOP_KIND = Either((Text(1), ListOf(Text(1))))

SAMPLING = (
    Field("temperature", Number(0), "0 is greedy. Default: the model's, else 1."),
    Field(
        "top_p", Number(0, 1, low_open=True), "Most likely tokens up to this probability. Default: the model's, else 1."
    ),
    Field("top_k", Integer(-1), "The k most likely tokens; 0 or -1 is all of them."),
    Field("min_p", Number(0, 1), "No token less likely than this times the most likely one."),
    Field(
        "seed", Integer(-(2**63), 2**64 - 1), "The same seed and request give the same answer, alone or in any batch."
    ),
    Field(
        "repetition_penalty", Number(0, low_open=True), "Divides positive, multiplies negative logits of tokens so far."
    ),
    Field("presence_penalty", Number(-2, 2), "Subtracted once from the logit of each token already generated."),
    Field("frequency_penalty", Number(-2, 2), "Subtracted from the logit of each generated token, times its count."),
    Field("logit_bias", LogitBias(), "Added to the logits of the given token ids."),
    Field("stop_token_ids", TokenIds(), "Token ids that end the answer, besides the model's own."),
    Field("min_tokens", Integer(0), "Before so many tokens nothing ends the answer."),
    Field("ignore_eos", Boolean(), "Go on after the model's own end-of-sequence tokens."),
    Field("skip_special_tokens", Boolean(), "Leave special tokens out of the text. Default: true."),
    unsupported("include_stop_str_in_output", "false; the answer's stop_reason names the stop string", False),
)
"""How tokens are drawn and when that ends."""

SCHEDULING = (
    Field("priority", Integer(), "Lower is served first; equals in the order of their arrival. Default: 0."),
    Field("cache_salt", Text(1), "Prefixes are only shared with requests of the same salt."),
    Field("return_token_ids", Boolean(), "Add the token ids of prompt and answer, as vLLM does."),
    informational("request_id", Text(), "The header x-request-id names a request."),
    unsupported("truncate_prompt_tokens", "shorten the prompt in the client"),
    unsupported("kv_transfer_params", "prompts are computed where they are answered"),
    unsupported("vllm_xargs", "fields of docs/api.md by their own names", {}),
)

_SCHEMA_KIND = Either((Json("a JSON schema"), Text(1)))
STRUCTURED = Object(
    (
        Field("json", _SCHEMA_KIND, "A JSON schema, as an object or as text."),
        Field("regex", Text(1), "A regular expression that the whole answer matches."),
        Field("choice", ListOf(Text(1), 1), "The answer is one of these."),
        Field("grammar", Text(1), "A grammar in Lark's or EBNF form."),
        Field("json_object", Boolean(), "Any JSON object."),
        unsupported("structural_tag", "json, regex, choice, grammar or json_object"),
        unsupported("disable_any_whitespace", "a JSON schema or a grammar that says so", False),
        unsupported("disable_additional_properties", '"additionalProperties": false in the schema', False),
        unsupported("disable_fallback", "true: there is one engine for grammars, and it has no fallback", False, True),
        unsupported("whitespace_pattern", "a grammar that says so"),
        informational("backend", Text(), "There is one engine for grammars."),
    ),
    "an object with one of json, regex, choice, grammar and json_object",
)

GUIDES = (
    Field("structured_outputs", STRUCTURED, "What the answer must follow, in vLLM's form: one of the fields below."),
    Field("guided_json", _SCHEMA_KIND, "As structured_outputs.json."),
    Field("guided_regex", Text(1), "As structured_outputs.regex."),
    Field("guided_choice", ListOf(Text(1), 1), "As structured_outputs.choice."),
    Field("guided_grammar", Text(1), "As structured_outputs.grammar."),
    informational("guided_decoding_backend", Text(), "There is one engine for grammars."),
    unsupported("guided_whitespace_pattern", "guided_grammar"),
)

TEMPLATE = (
    Field("chat_template_kwargs", Json(), "Handed to the model's chat template; goes before what other fields set."),
    Field("add_generation_prompt", Boolean(), "End the prompt with the opening of the answer. Default: true."),
    Field("continue_final_message", Boolean(), "The answer goes on from the last message, which is the assistant's."),
    unsupported("chat_template", "the model's own template, with chat_template_kwargs"),
    unsupported("documents", "put the documents into a message", []),
    unsupported("mm_processor_kwargs", "text only", {}),
    unsupported("media_io_kwargs", "text only", {}),
)

REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
EFFORT = Field(
    "reasoning_effort",
    OneOf(REASONING_EFFORTS),
    "Handed to the chat template as reasoning_effort, and as enable_thinking and thinking (false for none).",
)
INCLUDE_REASONING = Field(
    "include_reasoning", Boolean(), "false leaves the reasoning out of the answer. Default: true."
)

LISTS_OF_LOGPROBS = (
    Field(
        "prompt_logprobs",
        Integer(0, MAX_LOGPROBS),
        "Also of each prompt token, with so many alternatives; not streamed.",
    ),
    Field("return_tokens_as_token_ids", Boolean(), 'Tokens in logprobs are written "token_id:…".'),
)

BEYOND = (
    unsupported("use_beam_search", "false; n draws several answers", False),
    unsupported("length_penalty", "1.0; it belongs to beam search", 1, 1.0),
    unsupported("early_stopping", "false; it belongs to beam search", False),
    unsupported("allowed_token_ids", "guided_choice, guided_regex or logit_bias"),
    unsupported("bad_words", "logit_bias", []),
    unsupported("spaces_between_special_tokens", "true", True),
    unsupported("logits_processors", "logit_bias, penalties and the guided_ fields", []),
    unsupported("thinking_token_budget", "reasoning_effort and max_tokens"),
    unsupported("detokenize", "true", True),
)
"""What vLLM's extensions have besides, and headrace has not."""

ABOUT_THE_CALLER = (
    informational("user", Text(), "The caller's name for its user."),
    informational("metadata", Json(), "Of the caller."),
    informational("store", Boolean(), "Nothing is stored."),
    informational("service_tier", Text(), "There is one tier."),
    informational("safety_identifier", Text(), "The caller's name for its user."),
    informational("prompt_cache_key", Text(), "Prefixes are shared without being asked; cache_salt separates them."),
    informational("prompt_cache_retention", Text(), "Prefixes are kept as long as there is room."),
    informational("prompt_cache_options", Json(), "Prefixes are shared without being asked."),
)

NOT_TEXT = (unsupported("moderation", "moderate before and after, in the client"),)

STREAM_OPTIONS = Object(
    (
        Field("include_usage", Boolean(), "A last chunk with the usage."),
        Field("continuous_usage_stats", Boolean(), "Usage so far in every chunk."),
        informational("include_obfuscation", Boolean(), "Chunks are never padded."),
    ),
    "an object with include_usage",
)
STREAM_OPTIONS_FIELD = Field("stream_options", STREAM_OPTIONS, "Of a stream.")
