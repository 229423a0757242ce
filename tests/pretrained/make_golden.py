"""Writes `golden/*.npz` with transformers: logits of tiny models of every supported layout.

    python tests/pretrained/make_golden.py      # needs torch and transformers

Each file holds the model's `config.json`, the names and shapes of its tensors (their values follow
from the names), inputs, and logits.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from weights import weight

MARIAN = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24, "max_position_embeddings": 32, "scale_embedding": True,
    "pad_token_id": 39, "decoder_start_token_id": 39, "eos_token_id": 0, "forced_eos_token_id": 0,
}  # fmt: skip
T5 = {
    "vocab_size": 40, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2,
    "num_decoder_layers": 3, "num_heads": 4, "relative_attention_num_buckets": 8,
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
}  # fmt: skip
CLASSES = {"Marian": "MarianMTModel", "T5": "T5ForConditionalGeneration"}

SOURCE = np.array([[5, 6, 7, 8, 9, 10, 11, 3], [12, 13, 3, 0, 0, 0, 0, 0]])
LENGTH = np.array([8, 3])
TARGET = np.array([[14, 15, 16, 17, 18], [20, 21, 22, 23, 24]])


def logits(model, encoder: bool, start: int | None) -> np.ndarray:
    """Of every target token, given the source and the tokens before it."""
    found = []
    for source, length, target in zip(SOURCE, LENGTH, TARGET, strict=True):
        source = source[:length]
        if encoder:
            fed = {"input_ids": source, "decoder_input_ids": np.array([start, *target[:-1]])}
        else:
            fed = {"input_ids": np.concatenate([source, target[:-1]])}
        fed = {name: torch.tensor(ids)[None] for name, ids in fed.items()}
        with torch.no_grad():
            found.append(model(**fed).logits[0, -len(target) :].numpy())
    return np.array(found, np.float32)


def main() -> None:
    """Writes all files."""
    folder = pathlib.Path(__file__).parent / "golden"
    for name, (kind, options) in CASES.items():
        config = getattr(transformers, f"{kind}Config")(**options)
        model = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(config).eval()
        # As save_pretrained would: tensors that are tied to another one are not stored.
        if (
            name == "t5_gated"
        ):  # such checkpoints have an output of their own, whatever is tied here
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        stored = {n: tuple(p.shape) for n, p in model.named_parameters()}
        if kind == "Marian":
            stored["final_logits_bias"] = tuple(model.final_logits_bias.shape)
        state = {n: torch.tensor(weight(n, shape)) for n, shape in stored.items()}
        positions = {n: p for n, p in model.state_dict().items() if "embed_positions" in n}
        stored = {n: s for n, s in stored.items() if n not in positions}
        model.load_state_dict({**state, **positions}, strict=False)
        if name != "t5_gated":
            model.tie_weights()
        np.savez_compressed(
            folder / f"{name}.npz",
            config=json.dumps(config.to_dict()),
            tensors=json.dumps(stored),
            logits=logits(model, config.is_encoder_decoder, options.get("decoder_start_token_id")),
        )
        print(name, len(stored), "tensors")


if __name__ == "__main__":
    main()
