"""What single classes need beyond the common sizes, and why."""

from __future__ import annotations

from typing import Any

_FULL_AND_SLIDING = {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
_SLIDING_THIRD = _FULL_AND_SLIDING | {"use_sliding_window": True}
_MAMBA2 = {"mamba_n_heads": 8}
_GEMMA4_LAYERS = ["sliding_attention", "full_attention"] * 2
_GEMMA4 = {
    "num_hidden_layers": 4,
    "layer_types": _GEMMA4_LAYERS,
    # The full-attention layers have larger heads, and the last two layers use the KV of the first two.
    "per_layer_config": {1: {"head_dim": 32}, 3: {"head_dim": 32}},
    "num_kv_shared_layers": 2,
}
_BLT_PART = {"num_hidden_layers": 1, "num_key_value_heads": 4}

OVERRIDES: dict[str, dict[str, Any]] = {
    "aria_text": {"moe_num_experts": 4},
    "bamba": _MAMBA2 | {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_size": [3, 4],
        "encoder_hash_byte_group_vocab": 100,
        "vocab_size": 260,
        "patcher_config": _BLT_PART | {"vocab_size": 260},
        "encoder_config": _BLT_PART | {"vocab_size": 260, "hidden_size_global": 128},
        "decoder_config": _BLT_PART | {"vocab_size": 260, "hidden_size_global": 128},
        "global_config": _BLT_PART | {"hidden_size": 128, "head_dim": 32},
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": None,
        },
    },
    # The modeling code reads a field that the configuration class does not have.
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4},
    },
    "deepseek_v4": {"num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 16, "index_n_heads": 4},
    "dots1": _FULL_AND_SLIDING,
    "dots3_note": {
        "vision_config": {"adapter_in_dim": 64, "adapter_out_dim": 64, "head_dim": 16, "num_key_value_heads": 4},
        "audio_config": {"adapter_out_dim": 64, "adapter_input_size": 64},
    },
    "dots3_note_text": {"per_layer_config": {1: {"kv_lora_rank": 16, "head_dim": 24}}},
    # Every kind of layer must have one that owns its KV before the layers that share it.
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [96] * 4,
        "activation_sparsity_pattern": [0.5, 0.0, 0.5, 0.0],
        "vocab_size_per_layer_input": 160,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "gemma4_text": _GEMMA4 | {"vocab_size_per_layer_input": 160, "hidden_size_per_layer_input": 16},
    "gemma4_unified_text": _GEMMA4,
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]], "num_heads": 4},
    "granitemoehybrid": _MAMBA2 | {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "laguna": _FULL_AND_SLIDING,
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv"]},
    # A layer here is two attention blocks.
    "longcat_flash": {"num_layers": 2, "q_lora_rank": 32, "moe_topk": 2, "zero_expert_num": 2, "head_dim": 8},
    "mellum": _FULL_AND_SLIDING,
    "mllama_text_model": {"cross_attention_layers": [1]},
    # Its cache slides, its mask does not: they agree as long as the window is the length.
    "moshi": {"sliding_window": 512},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "phi4_multimodal": {"vision_config": {"image_size": 28}},
    "phi4_multimodal_audio": {
        "num_blocks": 1,
        "ext_pw_out_channel": 64,
        "depthwise_separable_out_channel": 64,
        "nemo_conv_channels": 64,
    },
    "qwen2": _SLIDING_THIRD,
    "qwen2_moe": _SLIDING_THIRD,
    "qwen3": _SLIDING_THIRD,
    "qwen3_moe": {"use_sliding_window": True},
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "ngram_vocab_size_base": 128,
        "ple_embed_dim": 64,
        "hc_lowrank": 8,
    },
    "reformer": {
        "axial_pos_embds_dim": [32, 32],
        "axial_pos_shape": [16, 32],
        "attention_head_size": 16,
        "feed_forward_size": 96,
        "attn_layers": ["local", "lsh", "local"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 4,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 20,
        "shape_vocab_size": 20,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "xlstm": {"num_blocks": 3, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention"], "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}
"""Configuration fields by model type; those of a part, by the type of the part or under its name in the whole."""

WEIGHT_SCALE: dict[str, float] = {
    **dict.fromkeys(("camembert", "bert-generation", "ernie", "roc_bert"), 0.1),
    **dict.fromkeys(("data2vec-text", "electra", "roberta", "xlm-roberta", "xmod"), 0.12),
    **dict.fromkeys(("apertus", "bert", "fuyu"), 0.15),
}
"""Standard deviation of the weights where the common one makes a text of one token."""

NO_DECODER: dict[str, str] = {
    "gemma3n": "its vision tower needs the timm package (the text model gemma3n_text does not)",
    "gemma4_assistant": "drafts from the cache of a Gemma 4 model and has none of its own",
    "gemma4_unified_assistant": "drafts from the cache of a Gemma 4 model and has none of its own",
    "musicgen": "AutoModelForCausalLM hands it a configuration that it does not take",
    "musicgen_melody": "AutoModelForCausalLM hands it a configuration that it does not take",
}
"""Model types that have no tiny model here, and why."""
