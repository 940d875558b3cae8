"""Every field of a GenerationConfig is honoured, changes nothing, or is refused by name (law 6)."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig

from headrace.engine.generation_config import default_params, settings_from
from headrace.errors import InvalidParameter

EOS = frozenset({2})

# What changes how tokens are computed or reported, not which.
NEUTRAL = {
    "use_cache": False, "cache_implementation": "static", "cache_config": {"a": 1}, "max_cache_len": 5,
    "output_attentions": True, "output_hidden_states": True, "output_scores": True, "output_logits": True,
    "return_dict_in_generate": True, "pad_token_id": 0, "bos_token_id": 1, "compile_config": {"a": 1},
    "disable_compile": True, "continuous_batching_config": {"a": 1}, "low_memory": True, "prefill_chunk_size": 7,
    "is_assistant": True, "num_assistant_tokens": 3, "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.1, "max_matching_ngram_size": 2, "assistant_early_exit": 1,
    "assistant_lookbehind": 1, "target_lookbehind": 1, "assistant_ensemble_weight": 0.5, "speculation_type": "x",
    "use_mtp": True, "length_penalty": 2.0, "early_stopping": True, "diversity_penalty": 0.5,
    "decoder_start_token_id": 1, "renormalize_logits": True, "_from_model_config": True,
    "transformers_version": "5", "typical_p": 1.0, "num_beams": 1, "guidance_scale": 1.0, "suppress_tokens": [],
}  # fmt: skip

REFUSED = {
    "num_beams": 4, "num_beam_groups": 2, "penalty_alpha": 0.6, "dola_layers": "low", "typical_p": 0.5,
    "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "top_h": 0.4, "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.2, "bad_words_ids": [[5]],
    "forced_bos_token_id": 5, "forced_eos_token_id": 5, "suppress_tokens": [5], "begin_suppress_tokens": [5],
    "exponential_decay_length_penalty": (3, 1.1), "guidance_scale": 1.5, "watermarking_config": {"a": 1},
    "stop_strings": ["x"], "prompt_lookup_num_tokens": 3, "max_time": 1.0, "min_length": 5,
    "sequence_bias": {(5, 6): 1.0}, "remove_invalid_values": True, "token_healing": True,
    "constraints": [1], "force_words_ids": [[5]],
}  # fmt: skip

HONOURED: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_new_tokens": (7, {"max_tokens": 7}),
    "max_length": (30, {"max_tokens": None}),
    "min_new_tokens": (3, {"min_tokens": 3}),
    "num_return_sequences": (3, {"n": 3}),
    "repetition_penalty": (1.5, {"repetition_penalty": 1.5}),
    "sequence_bias": ([[[5], 2.0]], {"logit_bias": {5: 2.0}}),
    "do_sample": (True, {"temperature": 1.0, "top_k": 50}),
    "temperature": (0.5, {"temperature": 0.5}),
    "top_k": (9, {"top_k": 9}),
    "top_p": (0.5, {"top_p": 0.5}),
    "min_p": (0.1, {"min_p": 0.1}),
    "eos_token_id": ([5, 6], {}),
}


def config_with(**values: Any) -> GenerationConfig:
    """Without transformers' own validation, which warns of some combinations."""
    config = GenerationConfig()
    for name, value in values.items():
        setattr(config, name, value)
    return config


def test_every_field_that_transformers_has_is_known_here():
    unknown = set(vars(GenerationConfig())) - {*NEUTRAL, *REFUSED, *HONOURED}
    assert not unknown, f"decide what these mean: {sorted(unknown)}"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    with pytest.raises(InvalidParameter, match=name):
        settings_from(config_with(**{name: REFUSED[name]}), EOS)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral(name):
    assert settings_from(config_with(**{name: NEUTRAL[name]}), EOS) == settings_from(config_with(), EOS)


@pytest.mark.parametrize("name", HONOURED)
def test_honoured(name):
    value, expected = HONOURED[name]
    sampling = {"do_sample": True} if name in ("temperature", "top_k", "top_p", "min_p") else {}
    found = settings_from(config_with(**sampling, **{name: value}), EOS)
    assert {field: getattr(found.params, field) for field in expected} == expected
    assert found.eos_token_ids == (frozenset({5, 6}) if name == "eos_token_id" else EOS)
    assert found.max_total_tokens == (30 if name == "max_length" else None)


def test_the_default_is_greedy_of_transformers_own_length():
    found = settings_from(GenerationConfig(), EOS)
    params = found.params
    assert (params.temperature, params.max_tokens, params.n, found.eos_token_ids) == (0.0, 20, 1, EOS)


def test_max_length_beside_max_new_tokens_gives_way_as_in_transformers():
    found = settings_from(config_with(max_length=30, max_new_tokens=4), EOS)
    assert (found.params.max_tokens, found.max_total_tokens) == (4, None)


def test_minus_one_means_no_end_of_sequence():
    assert settings_from(config_with(eos_token_id=-1), EOS).eos_token_ids == frozenset()


def test_default_params_are_what_transformers_would_do(caplog: pytest.LogCaptureFixture) -> None:
    assert default_params(GenerationConfig()).greedy
    sampled = default_params(GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, max_new_tokens=7))
    assert (sampled.temperature, sampled.top_p, sampled.top_k, sampled.max_tokens) == (0.6, 0.95, 50, 7)
    assert default_params(GenerationConfig(no_repeat_ngram_size=3)).greedy
    assert "no_repeat_ngram_size" in caplog.text
