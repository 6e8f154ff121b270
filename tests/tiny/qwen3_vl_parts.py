"""Qwen 3 VL with random weights, for pipelines that read their texts with it.

Its processor needs torchvision, which nothing else here does: pipelines get the tokenizer in its place.
"""

from __future__ import annotations

from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.tiny.redrawn import redrawn


def qwen3_vl_encoder(
    tokenizer: Qwen2Tokenizer, width: int = 32, layers: int = 2
) -> Qwen3VLForConditionalGeneration:
    """Qwen 3 VL: `layers` + 1 hidden states [B, L, width]; `.model` is the part without the head."""
    number = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10_000.0},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": width,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    return redrawn(Qwen3VLForConditionalGeneration(config))
