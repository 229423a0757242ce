"""Peak host memory of an import, over the checkpoint's size in float32.

    python -m benchmarks.import_memory
    python -m benchmarks.import_memory --directory DIR

Without a directory, a random Llama of about 600 MB is written to a temporary one. A process of its
own imports the model; what it held before is subtracted. Linux only: the peak is the kernel's.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Literal

import ml_dtypes
import numpy as np
import tyro

CHILD = """
import sys, jax, nar, nar.pretrained, safetensors
jax.numpy.zeros(1).block_until_ready()
held = lambda name: next(line for line in open("/proc/self/status") if line.startswith(name))
print(held("VmRSS"))
model = nar.load(sys.argv[1]).model
jax.block_until_ready(model)
print(held("VmHWM"), held("VmRSS"))
"""


def main(
    directory: pathlib.Path | None = None,
    layers: int = 12,
    d_model: int = 1024,
    vocab_size: int = 16_000,
    dtype: Literal["float32", "bfloat16"] = "float32",
    parts: int = 1,
) -> None:
    """Prints the peak and what stays.

    Args:
        directory: of a model; without, a random one is made.
        layers: of the random model.
        d_model: its width.
        vocab_size: its vocabulary, with an output table of its own.
        dtype: of its file.
        parts: files that it is stored in.
    """
    if directory is not None:
        return measure(directory)
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), layers, d_model, vocab_size, dtype, parts)
        measure(pathlib.Path(folder))


def measure(directory: pathlib.Path) -> None:
    """Imports in another process, and prints."""
    size = file = 0
    for path in directory.glob("*.safetensors"):
        shapes = header(path)
        file += path.stat().st_size
        size += 4 * sum(int(np.prod(about["shape"])) for about in shapes.values())
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(directory)], capture_output=True, text=True, check=True
    )
    before, peak, after = (1024 * int(kb) for kb in re.findall(r"(\d+) kB", run.stdout))
    print(
        f"{file / 1e6:.0f} MB on disk, {size / 1e6:.0f} MB in float32: peak "
        f"{(peak - before) / size:.2f} x, afterwards {(after - before) / size:.2f} x "
        f"(without the {before / 1e6:.0f} MB of the libraries)"
    )


def header(path: pathlib.Path) -> dict[str, dict]:
    """What a safetensors file says of its tensors."""
    with open(path, "rb") as file:
        found = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found.pop("__metadata__", None)
    return found


def write(
    directory: pathlib.Path, layers: int, d_model: int, vocab_size: int, dtype: str, parts: int
) -> None:
    """A random Llama with its vocabulary."""
    import tokenizers
    from safetensors.numpy import save_file

    width = 4 * d_model
    config = {
        "model_type": "llama", "vocab_size": vocab_size, "hidden_size": d_model,
        "intermediate_size": width, "num_hidden_layers": layers,
        "num_attention_heads": d_model // 64, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>")).save(
        str(directory / "tokenizer.json")
    )
    square, up, down = (d_model, d_model), (width, d_model), (d_model, width)
    shapes = {"model.embed_tokens.weight": (vocab_size, d_model), "model.norm.weight": (d_model,)}
    shapes["lm_head.weight"] = (vocab_size, d_model)
    for i in range(layers):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": square for name in "qkvo"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": up for name in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = down
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{name}.weight"] = (d_model,)
    random, kind = np.random.default_rng(0), np.dtype(getattr(ml_dtypes, dtype, dtype))
    names, index = [*shapes], {}
    for part in range(parts):
        file = (
            f"model-{part + 1:05}-of-{parts:05}.safetensors" if parts > 1 else "model.safetensors"
        )
        tensors = {
            name: random.standard_normal(shapes[name], np.float32).astype(kind, copy=False)
            for name in names[part::parts]
        }
        save_file(tensors, directory / file)
        index |= dict.fromkeys(tensors, file)
    if parts > 1:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
