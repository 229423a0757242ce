"""Llama and its relatives (Touvron et al. 2023): Mistral, Qwen2, Qwen3.

RMS norms before the sublayers, rotary positions, gated feed-forward, grouped queries; Qwen2 adds
biases to queries, keys and values, Qwen3 norms of queries and keys.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from nar.errors import NarError
from nar.model import TransformerConfig
from nar.pretrained.tensors import Read, fuse

SURPLUS = ("rotary_emb.inv_freq", "lm_head.weight")


def config(found: Mapping[str, Any], names: Collection[str]) -> TransformerConfig:
    """The shape that `config.json` describes.

    Raises:
        NarError: it describes something that is not supported.
    """
    kind = found["model_type"]
    if (activation := found.get("hidden_act", "silu")) != "silu":
        raise NarError(f"hidden_act={activation!r}: supported is silu")
    if found.get("mlp_bias"):
        raise NarError("mlp_bias=true: this is not supported")
    eos = found["eos_token_id"]
    # Within the window of a sliding attention, it is full attention.
    window = found.get("sliding_window") if found.get("use_sliding_window", True) else None
    positions = min(found["max_position_embeddings"], window or found["max_position_embeddings"])
    bias = bool(found.get("attention_bias", False))
    return TransformerConfig(
        vocab_size=found["vocab_size"],
        d_model=found["hidden_size"],
        d_ff=found["intermediate_size"],
        heads=found["num_attention_heads"],
        kv_heads=found.get("num_key_value_heads"),
        head_dim=found.get("head_dim"),
        encoder_layers=0,
        decoder_layers=found["num_hidden_layers"],
        norm="rms",
        norm_eps=found["rms_norm_eps"],
        qk_norm=kind == "qwen3",
        activation="swish",
        gated=True,
        qkv_bias=kind == "qwen2" or bias,
        out_bias=bias,
        ff_bias=False,
        positions="rotary",
        max_positions=positions,
        scale_embedding=False,
        embeddings="shared" if found.get("tie_word_embeddings", False) else "separate",
        pad=found.get("pad_token_id", eos),
        bos=found.get("bos_token_id", eos),
        eos=eos,
        **rope(found),
    )


def rope(found: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions' fields, from either form in which configs have them.

    Raises:
        NarError: positions are scaled in a way that is not supported.
    """
    scaling = found.get("rope_parameters") or found.get("rope_scaling") or {}
    theta = scaling.get("rope_theta", found.get("rope_theta", 10_000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if (part := scaling.get("partial_rotary_factor", 1)) != 1:
        raise NarError(f"partial_rotary_factor={part}: this is not supported")
    if kind == "default":
        return {"rope_theta": theta}
    if kind == "linear":
        return {"rope_theta": theta, "rope_scaling": "linear", "rope_factor": scaling["factor"]}
    if kind == "llama3":
        return {
            "rope_theta": theta,
            "rope_scaling": "llama3",
            "rope_factor": scaling["factor"],
            "rope_low_factor": scaling["low_freq_factor"],
            "rope_high_factor": scaling["high_freq_factor"],
            "rope_original_positions": scaling["original_max_position_embeddings"],
        }
    raise NarError(f"rope_type={kind!r}: supported are default, linear, llama3")


def parameters(config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by name."""
    tied = () if config.embeddings == "separate" else ("lm_head.weight",)
    yield "embedding/table", read("model.embed_tokens.weight", *tied)
    yield "decoder/norm/scale", read("model.norm.weight")
    if not tied:
        yield "output/table", read("lm_head.weight")
    for i in range(config.decoder_layers):
        theirs, ours = f"model.layers.{i}", f"decoder/layers/{i}"
        for end in ("weight", *(("bias",) if config.qkv_bias else ())):
            qkv = (f"{theirs}.self_attn.{name}_proj.{end}" for name in "qkv")
            yield f"{ours}/attention/qkv/{end}", fuse(config.groups, *map(read, qkv))
        for end in ("weight", *(("bias",) if config.out_bias else ())):
            yield f"{ours}/attention/out/{end}", read(f"{theirs}.self_attn.o_proj.{end}")
        if config.qk_norm:
            yield f"{ours}/attention/query_norm/scale", read(f"{theirs}.self_attn.q_norm.weight")
            yield f"{ours}/attention/key_norm/scale", read(f"{theirs}.self_attn.k_norm.weight")
        yield f"{ours}/attention_norm/scale", read(f"{theirs}.input_layernorm.weight")
        ups = (f"{theirs}.mlp.{name}_proj.weight" for name in ("gate", "up"))
        yield f"{ours}/feed_forward/up/weight", np.concatenate([*map(read, ups)])
        yield f"{ours}/feed_forward/down/weight", read(f"{theirs}.mlp.down_proj.weight")
        yield f"{ours}/feed_forward_norm/scale", read(f"{theirs}.post_attention_layernorm.weight")
