"""Marian's translation models (Junczys-Dowmunt et al. 2018), such as opus-mt.

Norms follow the sublayers, positions are fixed sinusoids, and the decoder starts with the pad.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nar.core import NO_EOS
from nar.errors import NarError
from nar.model import TransformerConfig
from nar.model.positions import sinusoids
from nar.pretrained.tables import Tables
from nar.pretrained.tensors import BANNING, Read, Tensors, fuse

PREFIX = "model."
SURPLUS = ("embed_positions.weight", "lm_head.weight", "embed_tokens.weight")
SOURCE, TARGET = (f"model.{stack}.embed_tokens.weight" for stack in ("encoder", "decoder"))
TABLES = Tables(
    source=SOURCE,
    target=TARGET,
    output="lm_head.weight",
    shared=("model.shared.weight", TARGET, SOURCE, "lm_head.weight"),
)
ACTIVATIONS = {"swish": "swish", "silu": "swish", "relu": "relu", "gelu": "gelu"}


def config(found: Mapping[str, Any], tensors: Tensors) -> TransformerConfig:
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
    tensors.tie(*(TABLES.shared if shared else (TABLES.target, TABLES.output)))
    check_positions(found, tensors)
    bos = found["decoder_start_token_id"]
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
        logits_bias=tensors.find(BANNING) is not None,  # zeros are not always stored
        max_positions=found["max_position_embeddings"],
        scale_embedding=found.get("scale_embedding", False),
        embeddings=TABLES.embeddings(tensors),
        pad=found.get("pad_token_id", bos),
        bos=bos,
        eos=found.get("eos_token_id", NO_EOS),
    )


def check_positions(found: Mapping[str, Any], tensors: Tensors) -> None:
    """Raises a NarError where stored positions are no sinusoids, which are not read."""
    count, width = found["max_position_embeddings"], found["d_model"]
    for stack in ("encoder", "decoder"):
        name = tensors.find(f"model.{stack}.embed_positions.weight")
        if name and not tensors.near(name, sinusoids(count, width)):
            raise NarError(f"{name} holds no sinusoids: other positions are not supported")


def parameters(config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by name."""
    yield from TABLES.read(config, read)
    if config.logits_bias:
        yield "logits_bias", read(BANNING).reshape(-1)
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
