"""T5 and its relatives (Raffel et al. 2020; T5 1.1, mT5: gated, with an output of their own).

RMS norms before the sublayers, no biases, unscaled attention with a learned bias for distances.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nar.core import NO_EOS
from nar.errors import NarError
from nar.model import TransformerConfig
from nar.pretrained.tables import Tables
from nar.pretrained.tensors import Read, Tensors, fuse

PREFIX = "transformer."
LEGACY = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
SURPLUS = ("shared.weight", "embed_tokens.weight", "lm_head.weight", LEGACY)
SOURCE, TARGET = (f"{stack}.embed_tokens.weight" for stack in ("encoder", "decoder"))
TABLES = Tables(
    source=SOURCE, target=TARGET, output="lm_head.weight", shared=("shared.weight", SOURCE, TARGET)
)
DEFAULTS = {"t5": {"feed_forward_proj": "relu"}, "mt5": {"feed_forward_proj": "gated-gelu"}}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu_tanh", "silu": "swish"}

POSITIONS = 4096
"""Distances have buckets, and so no end; this is where ours ends."""


def config(found: Mapping[str, Any], tensors: Tensors) -> TransformerConfig:
    """The shape that `config.json` describes.

    Raises:
        NarError: it describes something that is not supported.
    """
    activation, gated = feed_forward(found)
    # Newer configs call every model tied; what tells is whether the outputs are scaled.
    tied = found.get("tie_word_embeddings", True)
    scaled = found["model_type"] == "t5" and found.get("scale_decoder_outputs", tied)
    one = scaled or (tied and tensors.find(TABLES.output) is None)
    tensors.tie(*TABLES.shared, *((TABLES.output,) if one else ()))
    pad = found.get("pad_token_id", 0)
    return TransformerConfig(
        vocab_size=found["vocab_size"],
        d_model=found["d_model"],
        d_ff=found["d_ff"],
        heads=found["num_heads"],
        head_dim=found["d_kv"],
        encoder_layers=found["num_layers"],
        decoder_layers=found.get("num_decoder_layers") or found["num_layers"],
        norm="rms",
        norm_eps=found.get("layer_norm_epsilon", 1e-6),
        activation=ACTIVATIONS[activation],  # pyright: ignore[reportArgumentType]
        gated=gated,
        qkv_bias=False,
        out_bias=False,
        ff_bias=False,
        positions="relative",
        relative_buckets=found.get("relative_attention_num_buckets", 32),
        relative_max_distance=found.get("relative_attention_max_distance", 128),
        max_positions=POSITIONS,
        scale_attention=False,
        scale_embedding=False,
        logits_scale=found["d_model"] ** -0.5 if scaled else 1.0,
        embeddings=TABLES.embeddings(tensors),
        pad=pad,
        bos=found.get("decoder_start_token_id", pad),
        eos=found.get("eos_token_id", NO_EOS),
    )


def feed_forward(found: Mapping[str, Any]) -> tuple[str, bool]:
    """The activation, and whether it is a gate's.

    Raises:
        NarError: it is not supported, or configs say two things.
    """
    projection = found["feed_forward_proj"]
    gated, name = projection.startswith("gated-"), projection.removeprefix("gated-")
    if name not in ACTIVATIONS:
        raise NarError(
            f"feed_forward_proj={projection!r}: supported are {', '.join(ACTIVATIONS)}, also with "
            "gated- before"
        )
    if projection == "gated-gelu":
        name = "gelu_new"  # T5 1.1 made it mean the approximation
    for field, said in (("is_gated_act", gated), ("dense_act_fn", name)):
        if found.get(field, said) != said:
            raise NarError(
                f"{field}={found[field]!r} and feed_forward_proj={projection!r} contradict each "
                "other"
            )
    return name, gated


def parameters(config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter by name."""
    yield from TABLES.read(config, read)
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for stack, depth in depths.items():
        first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield f"{stack}/relative/table", read(first)
        yield f"{stack}/norm/scale", read(f"{stack}.final_layer_norm.weight")
        for i in range(depth):
            theirs, ours = f"{stack}.block.{i}.layer", f"{stack}/layers/{i}"
            attention = f"{theirs}.0.SelfAttention"
            qkv = (f"{attention}.{name}.weight" for name in "qkv")
            yield f"{ours}/attention/qkv/weight", fuse(config.groups, *map(read, qkv))
            yield f"{ours}/attention/out/weight", read(f"{attention}.o.weight")
            yield f"{ours}/attention_norm/scale", read(f"{theirs}.0.layer_norm.weight")
            last = 1
            if stack == "decoder":
                last = 2
                cross = f"{theirs}.1.EncDecAttention"
                kv = (f"{cross}.{name}.weight" for name in "kv")
                yield f"{ours}/cross/query/weight", read(f"{cross}.q.weight")
                yield f"{ours}/cross/kv/weight", fuse(config.groups, *map(read, kv))
                yield f"{ours}/cross/out/weight", read(f"{cross}.o.weight")
                yield f"{ours}/cross_norm/scale", read(f"{theirs}.1.layer_norm.weight")
            dense = f"{theirs}.{last}.DenseReluDense"
            ups = (f"{dense}.{n}.weight" for n in (("wi_0", "wi_1") if config.gated else ("wi",)))
            yield f"{ours}/feed_forward/up/weight", np.concatenate([*map(read, ups)])
            yield f"{ours}/feed_forward/down/weight", read(f"{dense}.wo.weight")
            yield f"{ours}/feed_forward_norm/scale", read(f"{theirs}.{last}.layer_norm.weight")
