"""From transformers' GenerationConfig to SamplingParams: each field is honoured, neutral or refused by name (law 6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from headrace.engine.sampling_params import SamplingParams
from headrace.errors import InvalidParameter

_log = logging.getLogger(__name__)

_REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0.0),
    "dola_layers": (None,),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "top_h": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "bad_words_ids": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "watermarking_config": (None,),
    "stop_strings": (None, []),
    "prompt_lookup_num_tokens": (None,),
    "max_time": (None,),
    "min_length": (None, 0),
    "remove_invalid_values": (None, False),
    "token_healing": (None, False),
    "constraints": (None,),
    "force_words_ids": (None,),
}
"""Fields that change what is generated and that headrace does not do, each with the values that ask for nothing."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What a GenerationConfig asks for.

    Attributes:
        params: sampling. eos_token_ids: end of sequence.
        max_total_tokens: most tokens of prompt and output (`max_length`), where `max_new_tokens` says nothing.
    """

    params: SamplingParams
    eos_token_ids: frozenset[int]
    max_total_tokens: int | None


def settings_from(config: Any, model_eos: frozenset[int]) -> GenerationSettings:
    """What a GenerationConfig asks for.

    Args:
        config: a transformers GenerationConfig. model_eos: ids to use where it names none.

    Raises:
        InvalidParameter: it asks for something that is not done here; names the field.
    """
    for name in _not_done(config):
        neutral = _REFUSED[name][-1]
        hint = "use LLM, which has a tokenizer" if name == "stop_strings" else f"leave it at {neutral!r}"
        raise InvalidParameter(name, getattr(config, name), f"headrace does not do this; {hint}")
    by_length = config.max_new_tokens is None and config.max_length is not None
    params = SamplingParams(
        **_sampled(config),
        max_tokens=_or(config.max_new_tokens, None if by_length else 20),  # transformers' own default
        min_tokens=_or(config.min_new_tokens, 0),
        n=_or(config.num_return_sequences, 1),
        repetition_penalty=_or(config.repetition_penalty, 1.0),
        logit_bias=_single_token_bias(getattr(config, "sequence_bias", None)),
    )
    ids = config.eos_token_id
    eos = (
        model_eos if ids is None else frozenset(i for i in (ids if isinstance(ids, list | tuple) else [ids]) if i >= 0)
    )
    return GenerationSettings(params, eos, config.max_length if by_length else None)


def default_params(config: Any) -> SamplingParams:
    """How the makers of a model mean it to be sampled; what headrace does not do of that is logged."""
    if ignored := _not_done(config):
        _log.warning("the model's generation config asks for what headrace does not do: %s", ", ".join(ignored))
    params = SamplingParams(**_sampled(config), repetition_penalty=_or(config.repetition_penalty, 1.0))
    return params if config.max_new_tokens is None else replace(params, max_tokens=config.max_new_tokens)


def _not_done(config: Any) -> list[str]:
    return [name for name, neutral in _REFUSED.items() if getattr(config, name, None) not in neutral]


def _sampled(config: Any) -> dict[str, Any]:
    if not getattr(config, "do_sample", False):
        return {"temperature": 0.0}
    return {
        "temperature": _or(config.temperature, 1.0),
        "top_k": _or(config.top_k, 50),  # transformers' own default
        "top_p": _or(config.top_p, 1.0),
        "min_p": _or(config.min_p, 0.0),
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _single_token_bias(bias: Any) -> dict[int, float]:
    """`sequence_bias` of single tokens is a logit bias; longer sequences are refused."""
    entries = dict(bias) if isinstance(bias, dict) else {tuple(ids): value for ids, value in bias or ()}
    longer = [ids for ids in entries if len(ids) != 1]
    if longer:
        raise InvalidParameter("sequence_bias", longer, "headrace biases single tokens only")
    return {ids[0]: value for ids, value in entries.items()}
