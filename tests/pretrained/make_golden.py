"""Writes `golden/` with transformers: what it makes of tiny models of every layout, and of configs.

    pip install torch transformers
    python -m tests.pretrained.make_golden [NAME ...]

Without names, all of them.
"""

import json
import pathlib
import sys
import tempfile
from collections.abc import Collection

import numpy as np
import transformers

from tests.pretrained import tiny
from tests.pretrained.peer import Peer

CLASSES = {
    "Marian": "MarianMTModel",
    "T5": "T5ForConditionalGeneration",
    "MT5": "MT5ForConditionalGeneration",
}
COUNT = 36


def describe(name: str) -> dict[str, str]:
    """A model's configs, and the names and shapes of the tensors that its file holds."""
    kind, options = tiny.CASES[name]
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, CLASSES.get(kind, f"{kind}ForCausalLM"))(config)
    # Tensors that are tied to another one are not stored, nor are positions that can be computed.
    stored = {n: tuple(p.shape) for n, p in model.named_parameters() if "embed_positions" not in n}
    if kind == "Marian":
        stored["final_logits_bias"] = tuple(model.final_logits_bias.shape)
    bare = {n.removeprefix(tiny.BARE.get(name, "")): shape for n, shape in stored.items()}
    stored = bare | tiny.ADDED.get(name, {})
    special = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
    generation = {n: getattr(config, n) for n in special if getattr(config, n, None) is not None}
    generation |= {n: options[n] for n in options if n.startswith("forced")}
    generation |= tiny.RULES.get(name, {})
    parts = {"config": config.to_dict(), "generation": generation, "tensors": stored}
    return {key: json.dumps(part) for key, part in parts.items()}


def main(names: Collection[str]) -> None:
    """Writes the files of these models."""
    for name in names:
        path = tiny.GOLDEN / f"{name}.npz"
        about = describe(name)
        np.savez_compressed(path, **about)
        with tempfile.TemporaryDirectory() as folder:
            tiny.write(pathlib.Path(folder), name)
            peer = Peer(pathlib.Path(folder))
        sources = tiny.rows(COUNT)
        found = {"logits": np.array(peer.logits(sources[:2], tiny.TARGETS), np.float32)}
        found["greedy"], found["greedy_length"] = packed(peer.greedy(sources, tiny.MOST))
        if peer.encoder:
            outputs, scores = peer.beam(sources, tiny.MOST, tiny.BEAMS)
            found["beam"], found["beam_length"] = packed(outputs)
            found["beam_scores"] = scores.astype(np.float32)
        np.savez_compressed(path, **about, **found)
        ended = (found["greedy_length"] < tiny.MOST).mean()
        print(f"{name}: {ended:.0%} of greedy outputs end, {path.stat().st_size} bytes")


def understood() -> list[dict]:
    """What transformers makes of the configs of `tiny.VARIANTS`, by number."""
    found = []
    for number in range(len(tiny.VARIANTS)):
        with tempfile.TemporaryDirectory() as folder:
            tiny.write_variant(pathlib.Path(folder), number)
            config = transformers.AutoConfig.from_pretrained(folder)
            path = pathlib.Path(folder, "generation_config.json")
            file = path.name if path.is_file() else "config.json"
            ends = transformers.GenerationConfig.from_pretrained(folder, file).eos_token_id
        about = {"ends": ends if isinstance(ends, list) else [ends][: ends is not None]}
        if not config.is_encoder_decoder:
            model = transformers.AutoModelForCausalLM.from_config(config).model
            every = config.sliding_window if config.model_type == "mistral" else None
            layers = [layer.self_attn for layer in model.layers]
            about |= {
                "windows": [getattr(layer, "sliding_window", every) for layer in layers],
                "frequencies": model.rotary_emb.inv_freq.tolist(),
                "magnitude": model.rotary_emb.attention_scaling,
            }
        found.append(about)
    return found


def packed(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows as one array, -1 after their ends, and their lengths."""
    tokens = np.full((len(rows), tiny.MOST), -1, np.int16)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    return tokens, np.array([len(row) for row in rows], np.int16)


if __name__ == "__main__":
    main(sys.argv[1:] or tiny.CASES)
    tiny.CONFIGS.write_text("".join(f"{json.dumps(about)}\n" for about in understood()))
