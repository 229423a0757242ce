"""Imported models against transformers' own numbers, kept in `golden/` by `make_golden.py`."""

import importlib.util
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import nar.pretrained
from nar.core import NarError, Source
from nar.data.tokenizer import Tokenizer
from nar.pretrained import load_pretrained
from nar.testing.oracles import teacher_forced

HERE = pathlib.Path(__file__).parent
GOLDEN = sorted(path.stem for path in (HERE / "golden").glob("*.npz"))
SOURCE = [[5, 6, 7, 8, 9, 10, 11, 3], [12, 13, 3]]
TARGET = [[14, 15, 16, 17, 18], [20, 21, 22, 23, 24]]

spec = importlib.util.spec_from_file_location("weights", HERE / "weights.py")
assert spec is not None
assert spec.loader is not None
weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(weights)


def vocabulary(directory, config):
    """Files of a vocabulary, as each layout has them."""
    texts = ["the dog sleeps", "ein Hund schläft", "a b c d e f g h i j k l m n o p"]
    spm = Tokenizer.train(texts, vocab_size=38).model
    if config["model_type"] == "marian":
        for name in ("source.spm", "target.spm"):
            (directory / name).write_bytes(spm)
        pieces = {"</s>": 0, "<unk>": 1, "▁the": 2, "▁dog": 3, ">>de<<": 4, "s": 5}
        (directory / "vocab.json").write_text(json.dumps(pieces))
    else:
        (directory / "spiece.model").write_bytes(spm)


def write(directory, name, parts=1):
    """A directory in Hugging Face's layout; returns what transformers computes with it."""
    with np.load(HERE / "golden" / f"{name}.npz") as golden:
        config, shapes = (json.loads(str(golden[key])) for key in ("config", "tensors"))
        logits = golden["logits"]
    directory.mkdir(exist_ok=True)
    tensors = {name: weights.weight(name, tuple(shape)) for name, shape in shapes.items()}
    (directory / "config.json").write_text(json.dumps(config))
    vocabulary(directory, config)
    if parts == 1:
        save_file(tensors, directory / "model.safetensors")
        return logits
    names, index = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({n: tensors[n] for n in names[part::parts]}, directory / file)
        index |= dict.fromkeys(names[part::parts], file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return logits


@pytest.fixture
def marian(tmp_path):
    write(tmp_path / "m", "marian")
    return tmp_path / "m"


def test_every_layout_has_its_golden_file():
    kinds = set()
    for name in GOLDEN:
        with np.load(HERE / "golden" / f"{name}.npz") as golden:
            kinds.add(json.loads(str(golden["config"]))["model_type"])
    assert kinds | {"mt5"} == set(nar.pretrained.LAYOUTS)


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_are_those_of_transformers(tmp_path, name):
    expected = write(tmp_path, name)
    model, _ = load_pretrained(tmp_path)
    found = teacher_forced(model, Source.of(SOURCE), jnp.asarray(TARGET))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected) > 3  # the comparison sees something


def test_weights_in_parts(tmp_path):
    expected = write(tmp_path, "llama", parts=3)
    model, _ = load_pretrained(tmp_path)
    found = teacher_forced(model, Source.of(SOURCE), jnp.asarray(TARGET))
    np.testing.assert_allclose(found, expected, atol=1e-4)


# -------------------------------------------------------------------------------------- bad input
def change(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit(directory, add=(), drop=(), shape=None):
    from safetensors.numpy import load_file

    tensors = load_file(directory / "model.safetensors")
    tensors |= {name: np.zeros((2,), np.float32) for name in add}
    if shape:
        tensors |= {name: np.zeros(size, np.float32) for name, size in shape.items()}
    save_file({n: t for n, t in tensors.items() if n not in drop}, directory / "model.safetensors")


def test_an_unsupported_architecture_names_those_that_are(marian):
    change(marian, model_type="bert")
    with pytest.raises(NarError, match="'bert' model: supported are (?=.*marian).*qwen3"):
        load_pretrained(marian)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("marian", {"activation_function": "tanh"}, "activation_function='tanh'"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("marian", {"decoder_ffn_dim": 48}, "different widths"),
        ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj='gated-tanh'"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, name, fields, message):
    write(tmp_path, name)
    change(tmp_path, **fields)
    with pytest.raises(NarError, match=message):
        load_pretrained(tmp_path)


def test_missing_and_surplus_tensors_are_named(marian):
    edit(marian, add=["model.extra.weight"])
    with pytest.raises(NarError, match="marian model has not: model.extra.weight"):
        load_pretrained(marian)
    edit(marian, drop=["model.extra.weight", "model.decoder.layers.1.fc2.bias"])
    with pytest.raises(NarError, match=r"lacks the tensor model\.decoder\.layers\.1\.fc2\.bias"):
        load_pretrained(marian)


def test_a_tensor_of_another_shape_is_named(marian):
    edit(marian, shape={"model.shared.weight": (40, 8)})
    with pytest.raises(NarError, match=r"embedding/table would be \[40, 8\].*\[40, 16\]"):
        load_pretrained(marian)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(marian, keep):
    path = marian / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(NarError, match=r"model\.safetensors is truncated or damaged"):
        load_pretrained(marian)


def test_missing_files_are_named(tmp_path, marian):
    with pytest.raises(NarError, match="is no model's directory"):
        load_pretrained(tmp_path / "nowhere")
    (marian / "source.spm").unlink()
    with pytest.raises(NarError, match=r"source\.spm is missing"):
        load_pretrained(marian)
    write(marian, "marian")
    (marian / "model.safetensors").rename(marian / "pytorch_model.bin")
    with pytest.raises(NarError, match=r"neither .*pytorch_model\.bin would have to be unpickled"):
        load_pretrained(marian)


def test_a_lost_part_is_named(tmp_path):
    write(tmp_path, "llama", parts=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NarError, match="model-00002-of-00002.*is missing"):
        load_pretrained(tmp_path)


def test_a_vocabulary_larger_than_the_embedding_is_refused(marian):
    (marian / "vocab.json").write_text(json.dumps({"</s>": 0, "<unk>": 1, "a": 40}))
    with pytest.raises(NarError, match="vocabulary of 41 pieces for 40 embeddings"):
        load_pretrained(marian)
