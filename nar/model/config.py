"""The shape of a transformer, as data."""

import dataclasses
from typing import Literal

from nar.core import NO_EOS
from nar.errors import NarError, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A transformer: encoder-decoder, or decoder-only when `encoder_layers` is 0.

    The defaults are Vaswani et al. (2017) with norms before the sublayers. Other settings give the
    layouts of Marian (post-norm, swish, logits bias), T5 (RMS norm, relative positions, unscaled
    attention, no biases) and Llama and its relatives (rotary positions, gated swish, grouped
    queries, QK-norm).

    Attributes:
        vocab_size: tokens, special ones included.
        d_model: width of the residual stream.
        d_ff: hidden width of the feed-forward layers.
        heads: query heads.
        kv_heads: key-value heads, a divisor of `heads`; None: as many as `heads`.
        head_dim: width of a head; None: `d_model // heads`.
        encoder_layers, decoder_layers: depths; 12-1 is as good as 6-6.
        norm: layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019).
        norm_position: "pre": x + f(norm(x)); "post": norm(x + f(x)).
        final_norm: whether a norm follows the last layer; None: with "pre" only.
        norm_eps: added to the variance.
        qk_norm: an RMS norm of each query and key head (Henry et al. 2020; Qwen3).
        activation: of the feed-forward layers.
        gated: activation(gate(x)) * up(x) (Shazeer 2020).
        qkv_bias, out_bias, ff_bias, logits_bias: which products add a bias.
        positions: "sinusoidal" (sines, then cosines), "learned", "rotary" (Su et al. 2021),
            "relative" (bucketed bias of T5; Raffel et al. 2020) or "none".
        max_positions: of sinusoidal and learned positions; the limit of lengths for all.
        rope_theta: base of the rotary wavelengths.
        rope_scaling: "linear": all wavelengths times `rope_factor` (Chen et al. 2023); "llama3":
            those longer than `rope_original_positions / rope_low_factor` are, those shorter than
            `rope_original_positions / rope_high_factor` are not, and between it is gradual; "yarn":
            the same, but gradual over the dimensions between (Peng et al. 2023).
        rope_factor, rope_low_factor, rope_high_factor, rope_original_positions: of `rope_scaling`.
        rope_truncate: of "yarn": between whole dimensions.
        rope_magnitude: multiplies rotated queries and keys ("yarn": their temperature).
        relative_buckets, relative_max_distance: of relative positions.
        windows: of each decoder layer, how many tokens a token sees, the last of them itself
            (sliding windows; Beltagy et al. 2020); None: all. Empty: all, in every layer.
        scale_attention: divide scores by sqrt(head_dim).
        scale_embedding: multiply embeddings by sqrt(d_model).
        logits_scale: multiplies the hidden states before the vocabulary (T5: d_model ** -0.5).
        embeddings: "shared": source, target and output are one table; "tied": target and output
            are, the source has its own; "inputs": source and target are, the output has its own;
            "separate": three tables.
        source_vocab_size: None: `vocab_size`; only with embeddings that are not shared.
        dropout: of embeddings, sublayer outputs and feed-forward activations; training only.
        dtype: of activations; parameters are always float32.
        causal: the decoder is for `extend`: it predicts the next token.
        bidirectional: the decoder is for `fill`: it predicts a canvas at once.
        upsample: how many places of the canvas stand for each source token. What is fed where
            nothing is known is the encoder's state, split linearly into so many (Libovický & Helcl
            2018). 0: a canvas is as long as one likes, and the mask token is fed.
        length_classes: of the head that predicts how much longer than the source an output is; 0:
            there is no such head.
        pad, bos, eos, mask, blank: token ids; `bos` starts the decoder of an encoder-decoder,
            `mask` stands for a place of the canvas where nothing is known, `blank` is CTC's; an
            `eos` of `nar.core.NO_EOS`: no token ends an output.
        also_eos: other tokens that end an output; `eos` is written for each of them.
        banned: tokens that are never written.
    """

    vocab_size: int
    d_model: int = 256
    d_ff: int = 1024
    heads: int = 8
    kv_heads: int | None = None
    head_dim: int | None = None
    encoder_layers: int = 3
    decoder_layers: int = 3
    norm: Literal["layer", "rms"] = "layer"
    norm_position: Literal["pre", "post"] = "pre"
    final_norm: bool | None = None
    norm_eps: float = 1e-6
    qk_norm: bool = False
    activation: Literal["relu", "gelu", "gelu_tanh", "swish"] = "relu"
    gated: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    ff_bias: bool = True
    logits_bias: bool = False
    positions: Literal["sinusoidal", "learned", "rotary", "relative", "none"] = "sinusoidal"
    max_positions: int = 512
    rope_theta: float = 10_000.0
    rope_scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    rope_factor: float = 1.0
    rope_low_factor: float = 1.0
    rope_high_factor: float = 4.0
    rope_original_positions: int = 8192
    rope_truncate: bool = True
    rope_magnitude: float = 1.0
    relative_buckets: int = 32
    relative_max_distance: int = 128
    windows: tuple[int | None, ...] = ()
    scale_attention: bool = True
    scale_embedding: bool = True
    logits_scale: float = 1.0
    embeddings: Literal["shared", "tied", "inputs", "separate"] = "shared"
    source_vocab_size: int | None = None
    dropout: float = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    causal: bool = True
    bidirectional: bool = False
    upsample: int = 0
    length_classes: int = 0
    pad: int = 0
    bos: int = 2
    eos: int = 3
    mask: int | None = None
    blank: int | None = None
    also_eos: tuple[int, ...] = ()
    banned: tuple[int, ...] = ()

    def __post_init__(self):
        if self.eos in self.also_eos:
            raise NarError(f"also_eos={self.also_eos} holds eos={self.eos}: it names other tokens")
        for name in ("also_eos", "banned", "windows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists only
        for name in ("vocab_size", "d_model", "d_ff", "heads", "decoder_layers", "max_positions"):
            at_least(name, getattr(self, name), 1)
        for name in ("encoder_layers", "upsample", "length_classes"):
            at_least(name, getattr(self, name), 0)
        at_least("relative_buckets", self.relative_buckets, 4)
        # Half of a decoder's buckets hold one distance each, the others what lies beyond.
        near = self.relative_buckets // 2
        at_least("relative_max_distance", self.relative_max_distance, near + 1)
        at_least("rope_original_positions", self.rope_original_positions, 1)
        for name in ("norm_eps", "rope_theta", "rope_factor", "rope_low_factor", "rope_magnitude"):
            if not getattr(self, name) > 0:
                raise NarError(f"{name}={getattr(self, name)}: it must be above 0")
        if self.rope_scaling != "yarn" and not self.rope_high_factor > self.rope_low_factor:
            raise NarError(
                f"rope_high_factor={self.rope_high_factor}: it must be above "
                f"rope_low_factor={self.rope_low_factor}"
            )
        for name in ("kv_heads", "head_dim", "source_vocab_size"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        for field in dataclasses.fields(self):
            choices = getattr(field.type, "__args__", ())
            value = getattr(self, field.name)
            if getattr(field.type, "__origin__", None) is Literal and value not in choices:
                raise NarError(f"{field.name}={value!r}: it must be one of {', '.join(choices)}")
        if self.head_dim is None and self.d_model % self.heads:
            raise NarError(
                f"d_model={self.d_model} is no multiple of heads={self.heads}: set head_dim, or "
                "change one of them"
            )
        if self.heads % (self.kv_heads or self.heads):
            raise NarError(f"heads={self.heads} is no multiple of kv_heads={self.kv_heads}")
        if self.positions == "rotary" and self.dim % 2:
            raise NarError(f"rotary positions need an even head width; it is {self.dim}")
        if not 0 <= self.dropout < 1:
            raise NarError(f"dropout={self.dropout}: it must be in [0, 1)")
        if self.source_vocab_size and self.embeddings not in ("tied", "separate"):
            raise NarError(
                f"source_vocab_size needs embeddings='tied' or 'separate', not {self.embeddings!r}"
            )
        if self.bidirectional and (self.mask is None or not self.encoder_layers):
            raise NarError(
                f"bidirectional=True needs an encoder and a mask token, not encoder_layers="
                f"{self.encoder_layers} and mask={self.mask}"
            )
        self._check_windows()
        for name in ("upsample", "length_classes"):
            if getattr(self, name) and not self.bidirectional:
                raise NarError(f"{name}={getattr(self, name)} needs bidirectional=True")
        if self.bidirectional and self.eos == NO_EOS:
            raise NarError(f"bidirectional=True needs an end of outputs, not eos={NO_EOS}")
        for name in ("pad", "bos", "eos", "mask", "blank"):
            if (name, self.eos) != ("eos", NO_EOS):
                self._check_token(name, getattr(self, name))
        for name in ("pad", "bos", "eos", "mask"):
            if self.blank is not None and getattr(self, name) == self.blank:
                raise NarError(f"blank={self.blank} is {name} too: it must be a token of its own")
        for name in ("also_eos", "banned"):
            for token in getattr(self, name):
                self._check_token(name, token)

    def _check_windows(self) -> None:
        if not self.windows:
            return
        if len(self.windows) != self.decoder_layers:
            raise NarError(
                f"windows={self.windows}: one for each of the decoder_layers={self.decoder_layers}"
            )
        if self.bidirectional:
            raise NarError("windows are for causal models: bidirectional=True has none")
        for window in self.windows:
            if window is not None:
                at_least("windows", window, 1)

    def _check_token(self, name: str, token: int | None) -> None:
        if token is not None and not 0 <= token < self.vocab_size:
            raise NarError(f"{name}={token}: it must be in 0..{self.vocab_size - 1}")

    @property
    def dim(self) -> int:
        """Width of a head."""
        return self.head_dim or self.d_model // self.heads

    @property
    def groups(self) -> int:
        """Key-value heads; each serves `heads // groups` query heads."""
        return self.kv_heads or self.heads

    @property
    def norm_at_end(self) -> bool:
        """Whether a norm follows the last layer."""
        return self.norm_position == "pre" if self.final_norm is None else self.final_norm
