"""Configurations of networks as their files have them: tiny ones of every kind, and full ones as published."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny

TINY = {
    "sample_size": 8,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
TINY_XL = TINY | {
    "block_out_channels": [32, 64, 64],
    "layers_per_block": 2,
    "attention_head_dim": [2, 4, 8],
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 3],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
UNETS: dict[str, dict[str, Any]] = {
    "SD 1": TINY,
    "SD 2": TINY | {"use_linear_projection": True, "attention_head_dim": [2, 4], "upcast_attention": True},
    "SDXL": TINY_XL,
    "like dreamlet": TINY
    | {
        "in_channels": 16,
        "out_channels": 16,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
    },
    "inpainting": TINY | {"in_channels": 9},
    "without a middle": TINY | {"mid_block_type": None, "layers_per_block": [1, 2]},
    "other waves": TINY | {"flip_sin_to_cos": False, "freq_shift": 1, "time_embedding_dim": 96, "act_fn": "swish"},
    "nested depths": TINY_XL
    | {
        "transformer_layers_per_block": [1, [2, 1], [3, 2]],
        "reverse_transformer_layers_per_block": [[2, 1, 3], [1, 2, 1], 1],
    },
}

# As published.
FULL_UNETS: dict[str, dict[str, Any]] = {
    "SD 1.5": {
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "sample_size": 64,
    },
    "SDXL": {
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
}
TINY_KL = {
    "block_out_channels": [16, 16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
    "norm_num_groups": 8,
}
FULL_KL = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
TINY_TINY = {
    "encoder_block_out_channels": [16] * 3,
    "decoder_block_out_channels": [16] * 3,
    "num_encoder_blocks": [0, 1, 2],
    "num_decoder_blocks": [2, 1, 0],
}
AUTOENCODERS = {
    "kl": (AutoencoderKL, TINY_KL),
    "kl without attention": (AutoencoderKL, TINY_KL | {"mid_block_add_attention": False}),
    "kl without 1x1": (AutoencoderKL, TINY_KL | {"use_quant_conv": False, "use_post_quant_conv": False}),
    "tiny": (AutoencoderTiny, TINY_TINY),
}
TINY_TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "projection_dim": 24,
    "bos_token_id": 98,
    "pad_token_id": 0,
}
