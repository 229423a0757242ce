"""Marian's translation models (Junczys-Dowmunt et al. 2018), such as opus-mt.

Norms follow the sublayers, positions are fixed sinusoids, and the decoder starts with the pad.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from nar.errors import NarError
from nar.model import TransformerConfig
from nar.pretrained.tensors import Read, fuse

SURPLUS = ("embed_positions.weight", "lm_head.weight", "embed_tokens.weight")
ACTIVATIONS = {"swish": "swish", "silu": "swish", "relu": "relu", "gelu": "gelu"}


def config(found: Mapping[str, Any], names: Collection[str]) -> TransformerConfig:
    """The shape that `config.json` describes.

    Raises:
        NarError: it describes something that is not supported.
    """
    if found["encoder_attention_heads"] != found["decoder_attention_heads"] or (
        found["encoder_ffn_dim"] != found["decoder_ffn_dim"]
    ):
        raise NarError("encoder and decoder have different widths: this is not supported")
    if (activation := found["activation_function"]) not in ACTIVATIONS:
        raise NarError(
            f"activation_function={activation!r}: supported are {', '.join(ACTIVATIONS)}"
        )
    if not found.get("tie_word_embeddings", True):
        raise NarError("tie_word_embeddings=false: Marian's output is its target embedding")
    shared = found.get("share_encoder_decoder_embeddings", True)
    return TransformerConfig(
        vocab_size=found.get("decoder_vocab_size") or found["vocab_size"],
        source_vocab_size=None if shared else found["vocab_size"],
        d_model=found["d_model"],
        d_ff=found["encoder_ffn_dim"],
        heads=found["encoder_attention_heads"],
        encoder_layers=found["encoder_layers"],
        decoder_layers=found["decoder_layers"],
        norm_position="post",
        norm_eps=1e-5,
        activation=ACTIVATIONS[activation],  # pyright: ignore[reportArgumentType]
        logits_bias="final_logits_bias" in names,  # zeros are not always stored
        max_positions=found["max_position_embeddings"],
        scale_embedding=found.get("scale_embedding", False),
        embeddings="shared" if shared else "tied",
        pad=found["pad_token_id"],
        bos=found["decoder_start_token_id"],
        eos=found["eos_token_id"],
    )


def parameters(config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by name."""
    shared, source, target = (
        f"model.{name}.weight"
        for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")
    )
    if config.embeddings == "shared":
        yield "embedding/table", read(shared, target, source, "lm_head.weight")
    else:
        yield "embedding/table", read(target, "lm_head.weight")
        yield "source_embedding/table", read(source)
    if config.logits_bias:
        yield "logits_bias", read("final_logits_bias").reshape(-1)
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for stack, depth in depths.items():
        for i in range(depth):
            theirs, ours = f"model.{stack}.layers.{i}", f"{stack}/layers/{i}"
            for end in ("weight", "bias"):
                qkv = (f"{theirs}.self_attn.{name}_proj.{end}" for name in "qkv")
                yield f"{ours}/attention/qkv/{end}", fuse(config.groups, *map(read, qkv))
                yield f"{ours}/attention/out/{end}", read(f"{theirs}.self_attn.out_proj.{end}")
                yield f"{ours}/feed_forward/up/{end}", read(f"{theirs}.fc1.{end}")
                yield f"{ours}/feed_forward/down/{end}", read(f"{theirs}.fc2.{end}")
                if stack == "decoder":
                    cross = f"{theirs}.encoder_attn"
                    kv = (f"{cross}.{name}_proj.{end}" for name in "kv")
                    yield f"{ours}/cross/query/{end}", read(f"{cross}.q_proj.{end}")
                    yield f"{ours}/cross/kv/{end}", fuse(config.groups, *map(read, kv))
                    yield f"{ours}/cross/out/{end}", read(f"{cross}.out_proj.{end}")
            norms = {
                "attention_norm": "self_attn_layer_norm",
                "feed_forward_norm": "final_layer_norm",
                **({"cross_norm": "encoder_attn_layer_norm"} if stack == "decoder" else {}),
            }
            for mine, name in norms.items():
                yield f"{ours}/{mine}/scale", read(f"{theirs}.{name}.weight")
                yield f"{ours}/{mine}/bias", read(f"{theirs}.{name}.bias")
