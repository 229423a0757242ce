"""Tiny models of every supported layout, in directories as transformers writes them.

A golden file holds a model's configs, the names and shapes of its tensors, and what transformers
makes of it. The tensors' values follow from their names, so the files stay small.
"""

import base64
import functools
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from nar import TransformerConfig
from nar.data.tokenizer import Tokenizer

GOLDEN = pathlib.Path(__file__).parent / "golden"
CONFIGS = GOLDEN / "configs.jsonl"
MOST, BEAMS, WIDTH = 24, 4, 8
TARGETS = [[14, 15, 16, 17, 18], [20, 21, 22, 23, 24]]

MARIAN = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "max_position_embeddings": 32, "scale_embedding": True,
    "pad_token_id": 39, "decoder_start_token_id": 39, "eos_token_id": 0, "forced_eos_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": 40, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 3,
    "num_decoder_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12, "decoder_start_token_id": 0,
}  # fmt: skip
LLAMA = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 10000.0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
    "beta_slow": 0.5, "rope_theta": 10000.0,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
SLIDING = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
CASES = {
    "marian": ("Marian", {**MARIAN, "activation_function": "swish"}),
    "marian_separate": (
        "Marian",
        {**MARIAN, "activation_function": "relu", "vocab_size": 44, "decoder_vocab_size": 40,
         "share_encoder_decoder_embeddings": False},
    ),
    "t5": ("T5", {**T5, "feed_forward_proj": "relu"}),
    "t5_gated": ("T5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "llama": ("Llama", LLAMA),
    "llama_linear": (
        "Llama", {**LLAMA, "tie_word_embeddings": True, "rope_parameters": LINEAR}
    ),
    "llama3": ("Llama", {**LLAMA, "rope_parameters": LLAMA3}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": 64}),
    "qwen2": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 6}),
    "marian_base": ("Marian", {**MARIAN, "activation_function": "swish"}),
    "t5_tables": ("T5", {**T5, "feed_forward_proj": "relu"}),
    "mt5": ("MT5", {**T5, "feed_forward_proj": "gated-gelu"}),
    "llama_head": ("Llama", {**LLAMA, "tie_word_embeddings": True, "rope_parameters": DYNAMIC}),
    "llama_endless": ("Llama", {**LLAMA, "eos_token_id": None, "pad_token_id": -1}),
    "mistral_window": ("Mistral", {**LLAMA, "sliding_window": 6}),
    "qwen2_base": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "qwen3_window": ("Qwen3", {**LLAMA, **SLIDING, "head_dim": 6, "rope_parameters": YARN}),
}  # fmt: skip
"""By name: transformers' class, and the fields of its config."""

ADDED = {
    "t5_gated": {"lm_head.weight": (40, 16)},
    "t5_tables": {
        "encoder.embed_tokens.weight": (40, 16),
        "decoder.embed_tokens.weight": (40, 16),
        "lm_head.weight": (40, 16),
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (8, 4),
    },
    "mt5": {"lm_head.weight": (40, 16)},
    "llama_head": {"lm_head.weight": (40, 16)},
}
"""Tensors of some models' files beside those that transformers would store: numbers of their own,
where the config says that they are another one's, or what is not read."""

BARE = {"marian_base": "model.", "qwen2_base": "model."}
"""The prefix that some models' names lack: only their base class was saved."""

WIDE, WAVES = {"head_dim": 24}, {**YARN, "original_max_position_embeddings": 64, "rope_theta": 50.0}
LONG = {"max_position_embeddings": 8192}
EACH = ["sliding_attention", "full_attention"]
VARIANTS = [
    # Windows: of Qwen's where asked for, from a layer on; of Mistral's where nothing denies them.
    ("qwen2", {"sliding_window": 4, "max_window_layers": 0}, ["use_sliding_window", "layer_types"]),
    ("qwen2", {**SLIDING, "sliding_window": None, "max_window_layers": 0}, ["layer_types"]),
    ("qwen2", {**SLIDING, "use_sliding_window": False}, ["layer_types"]),
    ("qwen2", SLIDING, ["layer_types"]),
    ("qwen3", SLIDING, ["layer_types", "max_window_layers"]),
    ("qwen3", {"use_sliding_window": True, **LONG, "num_hidden_layers": 29},
     ["layer_types", "sliding_window", "max_window_layers"]),
    ("qwen3", {**SLIDING, "layer_types": EACH}, []),
    ("mistral", LONG, ["sliding_window"]),
    ("mistral", {**LONG, "sliding_window": None}, []),
    ("mistral", {"sliding_window": 5, "layer_types": EACH}, []),
    ("llama", {"sliding_window": 5}, []),
    # Rotary positions, in both forms.
    ("llama", {"rope_scaling": {"type": "linear", "factor": 3.0}, "rope_theta": 500.0}, []),
    ("llama", {**WIDE, "rope_parameters": WAVES}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "truncate": False}}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "attention_factor": 1.5}}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "mscale": 0.7, "mscale_all_dim": 1.2}}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "mscale": 0.7, "factor": None}, **LONG}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "beta_fast": 2.0, "beta_slow": 2.0}}, []),
    ("llama", {**WIDE, "rope_parameters": {**WAVES, "factor": 0.5, "beta_fast": 0}}, []),
    ("llama", {**WIDE, "rope_parameters": WAVES, "original_max_position_embeddings": 32}, []),
    ("llama", {**WIDE, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}, **LONG}, []),
    ("llama", {**WIDE, "rope_parameters": WAVES, "rope_scaling": DYNAMIC}, []),
    ("llama", {**WIDE, "rope_parameters": {x: LLAMA3[x] for x in [*LLAMA3][:4]}, **LONG}, []),
    # Ends: what `generation_config.json` says, and only where it is missing, `config.json`.
    ("llama", {}, [], {"eos_token_id": [2, -1, 40, 5]}),
    ("llama", {}, [], {"eos_token_id": []}),
    ("llama", {"eos_token_id": 2}, [], {}),
    ("llama", {"eos_token_id": -1}, [], None),
    ("llama", {"eos_token_id": [7, 2]}, [], None),
    ("t5", {}, ["eos_token_id"], None),
]  # fmt: skip
"""By name of a case: changed fields of its config, those it lacks, and other generation configs."""

RULES = {
    "marian": {"bad_words_ids": [[39], [25], [0]], "renormalize_logits": True},
    "llama3": {"eos_token_id": [2, 7, 11, 13], "suppress_tokens": [5, 13]},
    "qwen2": {"eos_token_id": [2, 9]},
    "marian_base": {"bad_words_ids": [[39], [25], [0]], "renormalize_logits": True},
    "qwen2_base": {"eos_token_id": [2, 9]},
}
"""What some models' `generation_config.json` says beside the special tokens."""

SEEDS = {"marian": 23, "marian_separate": 1, "qwen2": 2, "marian_base": 5, "t5_tables": 20}
"""Of the weights; with these, a good part of the outputs ends."""

SMALLER = {"Attention.q.weight": 0.2, "DenseReluDense.wi_": 0.5}
"""T5 scales no attention, its weights must; larger ones would blow rounding up."""


def weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random numbers, around 1 for the scales of norms, larger for the first tokens: ends."""
    random = np.random.default_rng(zlib.crc32(name.encode()) + seed)
    values = random.normal(size=shape)
    if "norm" in name and name.endswith("weight"):
        return (1 + 0.2 * values).astype(np.float32)
    if any(table in name for table in ("shared", "embed_tokens", "lm_head")):
        values[:3] *= 1.5
    scale = 0.2 if len(shape) == 1 else 2 * shape[-1] ** -0.5
    scale *= next((small for part, small in SMALLER.items() if part in name), 1.0)
    return (scale * values).astype(np.float32)


def free(config: TransformerConfig) -> np.ndarray:
    """`[vocab]`: tokens whose logits no rule of `generate` touches."""
    return np.isin(np.arange(config.vocab_size), config.banned, invert=True)


def rows(count: int) -> list[list[int]]:
    """Sources of 1 to `WIDTH` tokens."""
    random = np.random.default_rng(0)
    return [random.integers(3, 38, random.integers(1, WIDTH + 1)).tolist() for _ in range(count)]


@functools.cache
def sentencepiece() -> bytes:
    """A vocabulary of at most 38 pieces."""
    texts = ["the dog sleeps", "ein Hund schläft", "a b c d e f g h i j k l m n o p"]
    return Tokenizer.train(texts, vocab_size=38).model


def read(name: str) -> dict[str, np.ndarray]:
    """A golden file."""
    with np.load(GOLDEN / f"{name}.npz") as golden:
        return dict(golden)


def write(directory: pathlib.Path, name: str, parts: int = 1) -> dict[str, np.ndarray]:
    """Writes a model's directory; returns its golden file."""
    golden = read(name)
    config, generation, shapes = (
        json.loads(str(golden[key])) for key in ("config", "generation", "tensors")
    )
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps(generation))
    write_vocabulary(directory, config["model_type"])
    tensors = {n: weight(n, tuple(shape), SEEDS.get(name, 3)) for n, shape in shapes.items()}
    if parts == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return golden
    names, index = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({n: tensors[n] for n in names[part::parts]}, directory / file, {"format": "pt"})
        index |= dict.fromkeys(names[part::parts], file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return golden


def write_variant(directory: pathlib.Path, number: int) -> None:
    """Writes the directory of one of `VARIANTS`; its weights may not fit."""
    name, fields, lacking, *generation = VARIANTS[number]
    write(directory, name)
    change(directory, drop=lacking, **fields)
    for rules in generation:
        path = directory / "generation_config.json"
        path.unlink() if rules is None else path.write_text(json.dumps(rules))


def write_vocabulary(directory: pathlib.Path, kind: str) -> None:
    """Writes the files of a vocabulary, as each layout has them."""
    if kind != "marian":
        (directory / "spiece.model").write_bytes(sentencepiece())
        return
    for name in ("source.spm", "target.spm"):
        (directory / name).write_bytes(sentencepiece())
    tokenizer = Tokenizer(sentencepiece())
    pieces = tokenizer.pieces(range(7, tokenizer.vocab_size))
    numbers = ["</s>", "<unk>", ">>de<<", *pieces]
    vocabulary = {piece: number for number, piece in enumerate(numbers)} | {"<pad>": 39}
    (directory / "vocab.json").write_text(json.dumps(vocabulary))


def texts() -> tuple[dict[str, Any], dict[str, bytes]]:
    """The cases of `texts.json`, and the SentencePiece models that their files name."""
    golden = json.loads((GOLDEN / "texts.json").read_text())
    models = {name: base64.b64decode(model) for name, model in golden["models"].items()}
    return golden["cases"], models


def write_files(
    directory: pathlib.Path, files: Mapping[str, Any], models: Mapping[str, bytes]
) -> None:
    """Writes the files of a case of `texts.json`: models by name, text as it is, other JSON."""
    for name, content in files.items():
        if name.endswith((".spm", ".model")):
            (directory / name).write_bytes(models[content])
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (directory / name).write_text(text)


def change(
    directory: pathlib.Path, file: str = "config.json", drop: Sequence[str] = (), **fields: Any
) -> None:
    """Sets and drops fields of a JSON file."""
    path = directory / file
    fields = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: x for name, x in fields.items() if name not in drop}))


def edit(
    directory: pathlib.Path,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    shape: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Adds, drops, reshapes and sets tensors of a model in one file."""
    tensors = load_file(directory / "model.safetensors")
    shapes = dict.fromkeys(add, (2,)) | (shape or {})
    tensors |= {name: np.zeros(size, np.float32) for name, size in shapes.items()}
    tensors |= {name: np.ascontiguousarray(value) for name, value in (values or {}).items()}
    save_file({n: t for n, t in tensors.items() if n not in drop}, directory / "model.safetensors")


def fast_vocabulary(
    directory: pathlib.Path,
    words: Sequence[str],
    *,
    begin: str = "<s>",
    added: Sequence[str] = (),
) -> None:
    """A `tokenizer.json` of whole words, which begins texts with BOS, or with nothing."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A".strip(), special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>", *added])
    tokenizer.save(str(directory / "tokenizer.json"))
