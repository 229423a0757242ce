"""Llama and its relatives (Touvron et al. 2023): Mistral, Qwen2, Qwen3.

RMS norms before the sublayers, rotary positions, gated feed-forward, grouped queries; Qwen2 adds
biases to queries, keys and values, Qwen3 norms of queries and keys.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nar.core import NO_EOS
from nar.errors import NarError
from nar.model import TransformerConfig
from nar.pretrained.tensors import Read, Tensors, fuse

PREFIX = "model."
SURPLUS = ("rotary_emb.inv_freq", "lm_head.weight")
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
SLIDING = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, **SLIDING},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128, **SLIDING},
}
"""What transformers takes where a `config.json` lacks a field, by `model_type`."""


def config(found: Mapping[str, Any], tensors: Tensors) -> TransformerConfig:
    """The shape that `config.json` describes.

    Raises:
        NarError: it describes something that is not supported.
    """
    kind = found["model_type"]
    if (activation := found.get("hidden_act", "silu")) != "silu":
        raise NarError(f"hidden_act={activation!r}: supported is silu")
    if found.get("mlp_bias"):
        raise NarError("mlp_bias=true: this is not supported")
    if not found.get("is_causal", True):
        raise NarError("is_causal=false: a decoder that looks ahead is not supported")
    tied = found.get("tie_word_embeddings", False)
    if tied:
        tensors.tie(*TABLES)
    # The others have no such field, and transformers does not look for it.
    bias = kind in ("llama", "qwen3") and bool(found.get("attention_bias", False))
    eos = found.get("eos_token_id", NO_EOS)
    end = max(eos, 0)  # stands for what else is missing
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
        max_positions=found["max_position_embeddings"],
        windows=windows(found),
        scale_embedding=False,
        embeddings="shared" if tied and len({*map(tensors.find, TABLES)}) == 1 else "separate",
        pad=found.get("pad_token_id", end),
        bos=found.get("bos_token_id", end),
        eos=eos,
        **rope(found),
    )


def windows(found: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Each layer's sliding window; none at all where none is shorter than the longest text.

    Raises:
        NarError: layers attend in another way.
    """
    kind, depth = found["model_type"], found["num_hidden_layers"]
    window, longest = found.get("sliding_window"), found["max_position_embeddings"]
    if kind == "llama" or not found.get("use_sliding_window", True):
        window = None
    first = depth if window is None else found.get("max_window_layers", 0)
    layers = ["sliding_attention" if i >= first else "full_attention" for i in range(depth)]
    layers = layers if kind == "llama" else found.get("layer_types", layers)
    if len(layers) != depth or not {*layers} <= {"full_attention", "sliding_attention"}:
        raise NarError(
            f"layer_types={layers}: supported are full_attention and sliding_attention, one for "
            f"each of the {depth} layers"
        )
    if window is None and "sliding_attention" in layers:
        raise NarError("layer_types has sliding_attention, and there is no sliding_window")
    if window is None or window >= longest or "sliding_attention" not in layers:
        return ()
    return tuple(window if layer == "sliding_attention" else None for layer in layers)


def rope(found: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions' fields, from either form in which configs have them.

    Raises:
        NarError: positions are scaled in a way that is not supported.
    """
    scaling = found.get("rope_scaling") or found.get("rope_parameters") or {}
    theta = scaling.get("rope_theta", found.get("rope_theta", 10_000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    part = found.get("partial_rotary_factor", 1) if kind != "default" else 1
    if (part := scaling.get("partial_rotary_factor", part)) != 1:
        raise NarError(f"partial_rotary_factor={part}: this is not supported")
    if nested := [name for name, value in scaling.items() if isinstance(value, dict)]:
        raise NarError(f"rope_parameters of {', '.join(nested)} apart: this is not supported")
    # Up to the longest text that is taken here, "dynamic" scales nothing.
    if kind in ("default", "dynamic"):
        return {"rope_theta": theta}
    if kind not in ("linear", "llama3", "yarn"):
        raise NarError(f"rope_type={kind!r}: supported are default, dynamic, linear, llama3, yarn")
    fields = {"rope_theta": theta, "rope_scaling": kind, "rope_factor": scaling["factor"]}
    if kind == "linear":
        return fields
    longest = found["max_position_embeddings"]
    original = scaling.get("original_max_position_embeddings", longest)
    original = found.get("original_max_position_embeddings", original)
    fields["rope_original_positions"] = original
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        return {**fields, "rope_low_factor": low, "rope_high_factor": high}
    factor = longest / original if scaling["factor"] is None else scaling["factor"]
    return {
        **fields,
        "rope_factor": factor,
        "rope_low_factor": scaling.get("beta_slow") or 1,
        "rope_high_factor": scaling.get("beta_fast") or 32,
        "rope_truncate": bool(scaling.get("truncate", True)),
        "rope_magnitude": magnitude(factor, scaling),
    }


def magnitude(factor: float, scaling: Mapping[str, Any]) -> float:
    """By how much YaRN scales queries and keys (Peng et al. 2023, section 3.4), or its variants."""
    if (given := scaling.get("attention_factor")) is not None:
        return given
    mscale, all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    log = 0.1 * math.log(max(factor, 1))
    return (mscale * log + 1) / (all_dim * log + 1) if mscale and all_dim else log + 1


def parameters(config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by name."""
    tied = () if config.embeddings == "separate" else TABLES[1:]
    yield "embedding/table", read(TABLES[0], *tied)
    yield "decoder/norm/scale", read("model.norm.weight")
    if not tied:
        yield "output/table", read(TABLES[1])
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
