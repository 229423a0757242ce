# pyright: reportMissingImports=false
"""Translation beside transformers and CTranslate2: same weights, same text, in turn.

    python -m benchmarks.translation --model DIR --text FILE             # a trained Marian model
    python -m benchmarks.translation --model DIR --text FILE --layers 6 --d-model 512

With --layers, random weights of another shape over the same vocabulary, which write 32 tokens for
every line. The encoder is included, tokenization is not.
"""

import json
import os
import pathlib
import shutil
import tempfile
from typing import Annotated

import numpy as np
import tyro

import nar
from benchmarks.peers import (
    Peer,
    ctranslate2_marian,
    in_turn,
    nar_decoder,
    show,
    transformers_greedy,
)
from nar.lines import read_texts

RANDOM_LENGTH = 32


def main(
    model: pathlib.Path,
    text: pathlib.Path,
    decoders: tuple[str, ...] = ("greedy",),
    lines: Annotated[int, tyro.conf.arg(help="for batch 1")] = 100,
    batch: Annotated[int, tyro.conf.arg(help="for throughput; all lines")] = 64,
    repeats: int = 3,
    layers: int | None = None,
    d_model: int = 512,
) -> None:
    """Prints the tables."""
    texts = read_texts(text)
    with tempfile.TemporaryDirectory() as folder:
        options = {}
        if layers is not None:
            model = random_model(model, pathlib.Path(folder) / "random", layers, d_model)
            options = {"transformers": {"min_new_tokens": RANDOM_LENGTH},
                       "ctranslate2": {"min_decoding_length": RANDOM_LENGTH}}  # fmt: skip
        translator = nar.load(model)
        most = RANDOM_LENGTH if layers is not None else 128
        peers: list[Peer] = [nar_decoder(model, name, most) for name in decoders]
        cores = os.cpu_count() or 1
        threads = sorted({1, cores})
        peers += transformers_greedy(model, cores, most, **options.get("transformers", {}))
        peers += ctranslate2_marian(
            model, threads, most, ("float32", "int8"), **options.get("ctranslate2", {})
        )
        picked = np.linspace(0, len(texts) - 1, min(lines, len(texts)), dtype=int)
        single = [[source] for source in translator.encode([texts[i] for i in picked])]
        base = peers[0].name
        show(f"{model.name}: batch 1", *in_turn(peers, single, repeats), base)
        if layers is None:
            sources = sorted(translator.encode(texts), key=len, reverse=True)
            batches = [sources[i : i + batch] for i in range(0, len(sources), batch)]
            show(f"{model.name}: batch {batch}, sorted", *in_turn(peers, batches, 1), base)


def random_model(like: pathlib.Path, path: pathlib.Path, layers: int, d_model: int) -> pathlib.Path:
    """Writes a Marian model of random weights with another's vocabulary; it never ends a text."""
    import torch
    import transformers

    config = json.loads((like / "config.json").read_text())
    for stack in ("encoder", "decoder"):
        config |= {f"{stack}_layers": layers, f"{stack}_ffn_dim": 4 * d_model,
                   f"{stack}_attention_heads": d_model // 64}  # fmt: skip
    torch.manual_seed(0)
    settings = transformers.MarianConfig(**{**config, "d_model": d_model})
    model = transformers.MarianMTModel(settings)
    model.config.forced_eos_token_id = model.generation_config.forced_eos_token_id = None
    model.final_logits_bias[:, [settings.eos_token_id, settings.pad_token_id]] = -1e9
    model.save_pretrained(path)
    for file in like.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, path)
    return path


if __name__ == "__main__":
    tyro.cli(main)
