"""A tiny random model of every decoder class of transformers.

One table of sizes serves all: a size is applied where the class's configuration has a field of that name. What a class
needs beyond that stands in `overrides.py`.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from tools.model_table.overrides import OVERRIDES, WEIGHT_SCALE
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB_SIZE = 160
WINDOW = 8
MAX_LENGTH = 512
NUM_LAYERS = 3

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": MAX_LENGTH,
    **dict.fromkeys(("n_positions", "n_ctx", "max_seq_len", "max_target_positions", "model_max_length"), MAX_LENGTH),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), NUM_LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_encoder_layers"), NUM_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "swa_head_dim", "kv_channels", "d_head", "dim_head", "attention_head_dim"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size"), 96),
    **dict.fromkeys(("dense_intermediate_size", "intermediate_size_mlp", "d_inner", "dff", "dim_ff"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 32),
    **dict.fromkeys(("shared_experts_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "prefix_dense_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("num_shared_experts", "n_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "local_attention"), WINDOW),
    **dict.fromkeys(("attention_chunk_size", "attention_window_size", "local_attention_window_len"), WINDOW),
    # Latent attention: the key is 16 + 8 wide, the value 16.
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 32),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("index_topk", "index_n_heads", "index_topk_blocks"), 4),
    "index_head_dim": 16,
    # State-space and linear-attention layers.
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("linear_num_key_heads", "n_groups", "mamba_n_groups", "mamba_ngroups"), 2),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("linear_head_dim", "mamba_d_state", "ssm_state_size", "state_size"), 16),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("embedding_size", "embedding_dim", "lru_width", "mamba_d_ssm"), 64),
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "forced_eos_token_id": None,
    # With the input's embeddings as output matrix, a random model repeats its last token.
    "tie_word_embeddings": False,
    "is_decoder": True,
    "use_cache": True,
    # Drop-out is off in evaluation, router noise is not asked.
    **dict.fromkeys(("router_jitter_noise", "input_jitter_noise"), 0.0),
}
"""A tiny value for each field that says a size, by the names that transformers has for it."""

PER_LAYER = ("layer_types", "mlp_layer_types", "indexer_types", "block_types")


def model_types() -> list[str]:
    """Every model type that `AutoModelForCausalLM` knows."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def class_name(model_type: str) -> str:
    """The class that `AutoModelForCausalLM` builds for this model type."""
    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])


def make_model(model_type: str) -> PreTrainedModel:
    """Build the class's tiny random model, in float32, for evaluation; the same weights each time."""
    torch.manual_seed(zlib.crc32(model_type.encode()))
    model = AutoModelForCausalLM.from_config(tiny_config(model_type), dtype=torch.float32)
    _randomise(model, WEIGHT_SCALE.get(model_type, 0.3))
    model.generation_config.eos_token_id = None
    model.generation_config.forced_eos_token_id = None
    return model.eval()


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Build the class's tiny configuration.

    Raises:
        Exception: whatever the configuration class raises: it does not take the sizes.
    """
    return _tiny(CONFIG_MAPPING[model_type], OVERRIDES.get(model_type, {}))


def _tiny(config_class: type[PreTrainedConfig], override: dict[str, Any]) -> PreTrainedConfig:
    """Shrink the class's default configuration and those inside it; `override` has the last word."""
    default = config_class()
    names = default.to_dict()
    fields = {name: value for name, value in SIZES.items() if name in names}
    if "qk_rope_head_dim" in names:
        fields.pop("head_dim", None)  # latent attention derives it, and has a key head per query head
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    fields |= {name: _shortened(names[name], NUM_LAYERS) for name in PER_LAYER if names.get(name)}
    fields |= override
    for name in config_class.sub_configs:
        part = getattr(default, name, None)
        if part is not None:
            fields[name] = _tiny(type(part), OVERRIDES.get(part.model_type, {}) | override.get(name, {}))
    return config_class(**fields)


def _shortened(kinds: list[str], num_layers: int) -> list[str]:
    """Each kind of layer at least once, in the order of the full model, in `num_layers` layers or as many as needed."""
    distinct = list(dict.fromkeys(kinds))
    while len(distinct) < num_layers:
        distinct.append(distinct[len(distinct) % len(set(distinct))])
    return distinct


@torch.no_grad()
def _randomise(model: PreTrainedModel, std: float) -> None:
    """Matrices get a scale that makes the output varied, and vectors (norms, biases) are moved off their 0 or 1."""
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.dim() >= 2:
            parameter.normal_(0.0, std)
        else:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
