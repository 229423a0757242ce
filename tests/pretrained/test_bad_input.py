"""What cannot be imported is refused, by name, and nothing of it is loaded."""

import json
import pickle
import re

import numpy as np
import pytest
from ml_dtypes import float8_e4m3fn

import nar
from nar.core import Source
from nar.errors import NarError
from tests.pretrained import tiny
from tests.pretrained.tiny import change, edit, fast_vocabulary


def refused(directory, message):
    with pytest.raises(NarError, match=message) as error:
        nar.load(directory)
    assert str(directory) in str(error.value)


def test_an_unsupported_architecture_names_those_that_are(directory):
    for kind in ("bert", None, ["llama"]):
        change(directory, model_type=kind)
        refused(
            directory, rf"{re.escape(repr(str(kind)))} model: supported are (?=.*marian).*qwen3"
        )


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("marian", {"activation_function": "tanh"}, "activation_function='tanh'"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("marian", {"decoder_ffn_dim": 48}, "different widths"),
        ("marian", {"d_model": "wide"}, "d_model='wide': it must be a whole number"),
        ("marian", {"decoder_start_token_id": 40}, "bos=40: it must be in 0..39"),
        ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj='gated-tanh'"),
        ("t5", {"feed_forward_proj": 3}, "field of its configs is damaged"),
        ("t5", {"d_model": "wide"}, "field of its configs is damaged"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type='longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "lacks the field 'factor'"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "of full_attention apart"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "lacks the field 'factor'"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"is_causal": False}, "is_causal=false"),
        ("llama", {"transformers_weights": "x.safetensors"}, "transformers_weights='x.safet"),
        ("mistral", {"sliding_window": 0}, "windows=0: it must be a whole number of at least 1"),
        ("qwen3", {"layer_types": ["full_attention"]}, "one for each of the 2 layers"),
        ("qwen3", {"layer_types": ["chunked_attention"] * 2}, "layer_types=.*'chunked_attention'"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "there is no sliding_window"),
        ("t5", {"is_gated_act": True}, "is_gated_act=True and feed_forward_proj='relu' contradict"),
        ("mt5", {"dense_act_fn": "relu"}, "dense_act_fn='relu' and .*'gated-gelu' contradict"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, r"\(gptq\): config\.json"),
        ("t5", {"quantization_config": {"load_in_8bit": True}}, r"\(an unknown method\): config"),
        ("llama", {"suppress_tokens": 5}, "field of its configs is damaged"),
        ("llama", {"bad_words_ids": [[40]]}, "banned=40: it must be in 0..39"),
        ("llama", {"eos_token_id": [2, "x"]}, "field of its configs is damaged"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named(tmp_path, name, fields, message):
    tiny.write(tmp_path, name)
    (tmp_path / "generation_config.json").unlink()
    change(tmp_path, **fields)
    refused(tmp_path, message)


@pytest.mark.parametrize("name", ["marian", "t5", "llama"])
def test_no_field_can_be_missing_unnoticed(tmp_path, name):
    """A field that is missing has a default, or is named, or another file tells."""
    tiny.write(tmp_path, name)
    complete = json.loads((tmp_path / "config.json").read_text())
    named = set()
    for field in complete.keys() - {"model_type"}:
        (tmp_path / "config.json").write_text(json.dumps(complete))
        change(tmp_path, drop=[field])
        try:
            nar.load(tmp_path)
        except NarError as error:
            named |= {field} if f"lacks the field '{field}'" in str(error) else set()
    assert len(named) >= 6, named


def test_missing_and_surplus_tensors_are_named(directory):
    edit(directory, add=["model.extra.weight"])
    refused(directory, "tensors that its model has not: model.extra.weight")
    edit(directory, add=[f"model.extra{i}.weight" for i in range(9)])
    refused(directory, r"extra6\.weight, and 2 more")
    dropped = ["model.extra.weight", *(f"model.extra{i}.weight" for i in range(9))]
    edit(directory, drop=[*dropped, "model.decoder.layers.1.fc2.bias"])
    refused(directory, r"lacks tensors: model\.decoder\.layers\.1\.fc2\.bias$")
    query, table = "model.encoder.layers.0.self_attn.q_proj.weight", "model.shared.weight"
    edit(directory, drop=[query, table])
    refused(directory, rf"{table} or .*, {query}, model\.decoder\.layers\.1\.fc2\.bias$")


def test_depths_of_another_model_are_noticed(directory):
    change(directory, decoder_layers=3)
    refused(directory, r"lacks tensors: model\.decoder\.layers\.2\..*, and \d+ more$")
    change(directory, decoder_layers=1)
    refused(directory, r"tensors that its model has not: model\.decoder\.layers\.1\.")


@pytest.mark.parametrize(
    ("tensor", "shape", "message"),
    [
        ("model.shared.weight", (40, 8), r"embedding/table would be \[40, 8\].*\[40, 16\]"),
        (
            "model.decoder.layers.0.self_attn.q_proj.weight",
            (15, 16),
            r"q_proj\.weight \[15, 16\].*v_proj\.weight \[16, 16\].* do not fit together",
        ),
        ("model.encoder.layers.0.fc1.bias", (), r"up/bias would be \[\].*fc1\.bias \[\].*\[24\]"),
    ],
)
def test_a_tensor_of_another_shape_is_named(directory, tensor, shape, message):
    edit(directory, shape={tensor: shape})
    refused(directory, message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mlp.up_proj.weight", np.zeros(3, float8_e4m3fn), r"quantized .*weight is F8_E4M3"),
        ("mlp.up_proj.weight", np.zeros(3, np.int8), r"quantized \(an unknown.*weight is I8"),
        ("mlp.up_proj.qweight", np.zeros(3, np.int32), r"\(GPTQ or AWQ\).*qweight is I32"),
        ("mlp.up_proj.weight.absmax", np.zeros(3, np.float32), r"\(bitsandbytes\): .*absmax; "),
        ("mlp.up_proj.weight", np.array([0, np.nan]), "up_proj.weight holds NaN"),
        ("mlp.up_proj.weight", np.array([np.inf, 0]), "up_proj.weight holds infinities"),
        ("mlp.up_proj.weight", np.array([0, 1e300]), "up_proj.weight holds infinities"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, name, value, message):
    tiny.write(tmp_path, "llama")
    edit(tmp_path, values={f"model.layers.1.{name}": value})
    refused(tmp_path, message)


def test_a_base_class_has_no_output_of_its_own(tmp_path):
    tiny.write(tmp_path, "qwen2_base")
    change(tmp_path, tie_word_embeddings=False)
    refused(tmp_path, r"lacks tensors: lm_head\.weight$")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(directory, keep):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(directory, r"model\.safetensors is truncated or damaged")


def test_missing_files_are_named(tmp_path, directory):
    refused(tmp_path / "nowhere", "is no directory")
    for name, said in (("config.json", "no config.json"), ("vocab.json", "vocab.json is missing")):
        tiny.write(directory, "marian")
        (directory / name).unlink()
        refused(directory, said)
    tiny.write(directory, "marian")
    (directory / "model.safetensors").unlink()
    refused(directory, r"holds neither model\.safetensors nor model\.safetensors\.index\.json$")
    tiny.write(tmp_path / "t", "t5")
    (tmp_path / "t" / "spiece.model").unlink()
    refused(tmp_path / "t", "neither tokenizer.json, nor spiece.model, nor tokenizer.model")


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_never_read(directory, name):
    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(pickle.dumps(Trap()))
    refused(directory, rf"neither .*{re.escape(name)} would have to be unpickled")


def test_other_files_are_named(directory):
    (directory / "model.safetensors").rename(directory / "adapter_model.safetensors")
    (directory / "model-q4.gguf").touch()
    refused(directory, r"adapter_model\.safetensors is an adapter.*model-q4\.gguf has a format")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("generation_config.json", "{'a': 1}"),
        ("vocab.json", "[1]"),
        ("vocab.json", '{"a": "b", "<unk>": 1}'),
        ("source.spm", "nothing"),
    ],
)
def test_a_damaged_file_is_named(directory, name, content):
    (directory / name).write_text(content)
    refused(directory, f"{re.escape(name)} is damaged")


def test_a_damaged_tokenizer_is_named(tmp_path):
    tiny.write(tmp_path, "llama")
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    refused(tmp_path, r"tokenizer\.json is damaged")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ('{"weight_map": 3}', "no weight_map"),
        ('{"weights": {}}', "no weight_map"),
        ('{"weight_map": {"a": 3}}', "3, of a, names no file"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names no file"),
        ('{"weight_map": {"a": "x.safetensors"}}', r"x\.safetensors is missing"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "lacks tensors .*names: a"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, content, message):
    tiny.write(tmp_path, "llama", parts=2)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    refused(tmp_path, message)


def test_a_lost_part_is_named(tmp_path):
    tiny.write(tmp_path, "llama", parts=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(tmp_path, r"model-00002-of-00002\.safetensors is missing")


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path, directory):
    (directory / "vocab.json").write_text(json.dumps({"</s>": 0, "<unk>": 1, "a": 40}))
    refused(directory, r"vocab\.json has 41 pieces, and the model beside it 40 embeddings")
    tiny.write(tmp_path / "l", "llama")
    fast_vocabulary(tmp_path / "l", [f"w{i}" for i in range(50)])
    refused(tmp_path / "l", r"tokenizer\.json has 50 pieces, .* 40 embeddings")


def test_a_prompt_longer_than_the_context_is_refused(tmp_path):
    tiny.write(tmp_path, "llama")
    translator = nar.load(tmp_path)
    with pytest.raises(NarError, match="line 2: longer than the 32 tokens that fit"):
        translator.translate(["the", "the dog " * 20])
    with pytest.raises(NarError, match="max_length=8 after a prompt of 60 positions"):
        nar.decode(nar.Greedy(max_length=8), translator.model, Source.of([[5] * 60]))


def test_an_untied_model_needs_both_tables(tmp_path):
    tiny.write(tmp_path, "llama")
    edit(tmp_path, drop=["model.embed_tokens.weight"])
    refused(tmp_path, r"lacks tensors: model\.embed_tokens\.weight$")
