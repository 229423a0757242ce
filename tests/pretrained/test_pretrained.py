"""Imported models against transformers' own numbers, kept in `golden/` by `make_golden.py`."""

import json
import pickle
import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nar
from nar.bench.protocol import System
from nar.core import Source
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.pretrained import LAYOUTS
from nar.testing.oracles import teacher_forced
from tests.pretrained import tiny

ENCODERS = [name for name, (kind, _) in tiny.CASES.items() if kind in ("Marian", "T5")]


def sources(count=None):
    return Source.of(tiny.rows(36)[:count], width=tiny.WIDTH)


def rows(tokens, length):
    return [row[:n].tolist() for row, n in zip(np.asarray(tokens), np.asarray(length), strict=True)]


# ----------------------------------------------------------------------- the same as transformers
def test_every_layout_has_its_golden_file():
    kinds = {json.loads(str(tiny.read(name)["config"]))["model_type"] for name in tiny.CASES}
    assert kinds | {"mt5"} == set(LAYOUTS)


@pytest.mark.parametrize("name", tiny.CASES)
def test_logits_and_greedy_outputs(tmp_path, name):
    golden = tiny.write(tmp_path, name)
    model = nar.load(tmp_path).model
    found, free = (
        teacher_forced(model, sources(2), jnp.asarray(tiny.TARGETS)),
        tiny.free(model.config),
    )
    expected = golden["logits"][..., free]
    np.testing.assert_allclose(found[..., free], expected, atol=1e-4)
    assert np.ptp(expected) > 2  # the comparison sees something
    output = nar.decode(nar.Greedy(max_length=tiny.MOST), model, sources())
    assert rows(output.tokens, output.length) == rows(golden["greedy"], golden["greedy_length"])
    assert 0.2 < (golden["greedy_length"] < tiny.MOST).mean() < 0.9


@pytest.mark.parametrize("name", ENCODERS)
def test_beam_search(tmp_path, name):
    """Where it settles: at the limit, transformers lets hypotheses compete that have no end."""
    golden = tiny.write(tmp_path, name)
    beam = nar.Beam(max_length=tiny.MOST, beams=tiny.BEAMS)
    output = nar.decode(beam, nar.load(tmp_path).model, sources())
    settled = np.asarray(output.stats.live) < tiny.MOST
    assert settled.sum() >= 6
    found, expected = (
        rows(output.tokens, output.length),
        rows(golden["beam"], golden["beam_length"]),
    )
    assert [found[i] for i in np.flatnonzero(settled)] == [
        expected[i] for i in np.flatnonzero(settled)
    ]
    np.testing.assert_allclose(
        output.scores[settled], golden["beam_scores"][settled], atol=1e-4, rtol=0
    )


def test_the_rules_of_generate_are_needed(tmp_path):
    """Without them, the golden outputs of the models that have some would be others."""
    for name in tiny.RULES:
        golden = tiny.write(tmp_path, name)
        (tmp_path / "generation_config.json").unlink()
        model = nar.load(tmp_path).model
        output = nar.decode(nar.Greedy(max_length=tiny.MOST), model, sources())
        assert rows(output.tokens, output.length) != rows(golden["greedy"], golden["greedy_length"])


def test_config_json_rules_where_nothing_else_does(directory):
    (directory / "generation_config.json").unlink()
    change(directory, eos_token_id=[0, 5], bad_words_ids=[[39], [0]], suppress_tokens=[7])
    config = nar.load(directory).model.config
    assert (config.eos, config.also_eos, config.banned) == (0, (5,), (39, 7))


def test_an_end_that_is_named_twice_is_one(directory):
    (directory / "generation_config.json").unlink()
    change(directory, eos_token_id=[0, 0, 5, 5])
    config = nar.load(directory).model.config
    assert (config.eos, config.also_eos) == (0, (5,))


def test_a_prompt_may_hold_another_end(tmp_path):
    tiny.write(tmp_path, "qwen2")
    translator = nar.load(tmp_path)
    assert translator.model.config.also_eos
    end = translator.model.config.also_eos[0]
    prompt, output = [5, end, 6], [7, 8]
    text = translator.texts([prompt], [output])[0]
    assert text
    assert translator.tokenizer.decode([prompt + output])[0].endswith(text)


def test_an_untied_model_needs_both_tables(tmp_path):
    tiny.write(tmp_path, "llama")
    edit(tmp_path, drop=["model.embed_tokens.weight"])
    refused(tmp_path, r"lacks tensors: model\.embed_tokens\.weight$")


def test_a_corpus_is_in_the_targets_pieces(directory):
    translator = nar.load(directory)
    other = Tokenizer.train(["ein Hund schl\u00e4ft", "the"], vocab_size=22).model
    (directory / "source.spm").write_bytes(other)
    apart = nar.load(directory)
    texts = ["ein Hund schl\u00e4ft"]
    assert apart.tokenizer.encode(texts) != translator.tokenizer.encode(texts)
    assert apart.tokenizer.encode_outputs(texts) == translator.tokenizer.encode_outputs(texts)
    assert apart.tokenizer.decode(apart.tokenizer.encode_outputs(texts)) == texts


def test_rules_that_look_back_are_named(directory):
    change(directory, "generation_config.json", bad_words_ids=[[3, 4]], repetition_penalty=1.2)
    with pytest.warns(UserWarning, match=r"repetition_penalty=1\.2, bad_words_ids=\[\(3, 4\)\]"):
        nar.load(directory)


def test_parts_and_the_id_of_the_weights(tmp_path):
    golden = tiny.write(tmp_path / "whole", "llama")
    tiny.write(tmp_path / "parts", "llama", parts=3)
    whole, parts = (nar.load(tmp_path / name) for name in ("whole", "parts"))
    assert whole.weights == parts.weights
    found = teacher_forced(parts.model, sources(2), jnp.asarray(tiny.TARGETS))
    np.testing.assert_allclose(found, golden["logits"], atol=1e-4)
    edit(tmp_path / "whole", shape={"model.norm.weight": (16,)})
    assert nar.load(tmp_path / "whole").weights != whole.weights
    change(tmp_path / "parts", rms_norm_eps=1e-3)
    assert nar.load(tmp_path / "parts").weights != whole.weights


def test_other_types_become_float32(directory):
    tensors = load_file(directory / "model.safetensors")
    half = {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}
    save_file(half, directory / "model.safetensors")
    model = nar.load(directory).model
    table = model.embedding.table[...]
    assert table.dtype == jnp.float32
    np.testing.assert_array_equal(table, half["model.shared.weight"].astype(np.float32))


def test_nan_is_a_number_too(directory):
    tensors = load_file(directory / "model.safetensors")
    tensors["final_logits_bias"][:] = np.nan
    save_file(tensors, directory / "model.safetensors")
    assert np.isnan(nar.load(directory).model.logits_bias[...]).all()


# ----------------------------------------------------------------------------------- vocabularies
def test_pieces_of_marian(directory):
    vocabulary = nar.load(directory).tokenizer
    numbers = json.loads((directory / "vocab.json").read_text())
    (row,) = vocabulary.encode([">>de<< the dogs"])
    assert row[0] == numbers[">>de<<"] == 2
    assert row[-1] == numbers["</s>"] == 0
    assert "".join(vocabulary.pieces(row)) == ">>de<<▁the▁dogs</s>"
    assert vocabulary.decode([[*row[1:], 5, 5]]) == ["the dogs"]
    assert vocabulary.encode(["Ω"]) == [[numbers["▁"], numbers["<unk>"], 0]]
    assert vocabulary.decode([[39, 1, *row[1:-1], 38, -1]]) == ["the dogs"]  # special, none, none
    assert vocabulary.encode([""]) == [[0]]


def test_a_target_vocabulary_of_its_own(tmp_path):
    tiny.write(tmp_path, "marian_separate")
    numbers = json.loads((tmp_path / "vocab.json").read_text())
    last = max(numbers.values())
    target = {piece: last - number for piece, number in numbers.items()}
    (tmp_path / "target_vocab.json").write_text(json.dumps(target))
    vocabulary = nar.load(tmp_path).tokenizer
    (row,) = vocabulary.encode(["the"])
    assert "".join(piece for n in row for piece in numbers if numbers[piece] == n) == "▁the</s>"
    assert vocabulary.decode([[target[piece] for piece in ("▁", "d", "o")]]) == ["do"]


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_sentencepiece(tmp_path, name):
    tiny.write(tmp_path, name)
    vocabulary = nar.load(tmp_path).tokenizer
    plain = tiny.Tokenizer(tiny.sentencepiece()).encode(["the dog"])[0][:-1]
    eos, bos = (1, 0) if name == "t5" else (2, 1)
    assert vocabulary.encode(["the dog", ""]) == [[*plain, eos], [eos]]
    assert vocabulary.encode(["the dog"], prompt=True) == [[bos, *plain]]
    assert vocabulary.decode([[*plain, 39, eos, 7], []]) == ["the dog", ""]
    assert "".join(vocabulary.pieces([*plain, 39])) == "▁the▁dog<39>"


def test_tokenizer_json(tmp_path):
    tiny.write(tmp_path, "llama")
    fast_vocabulary(tmp_path, ["<pad>", "<s>", "</s>", "the", "dog"])
    vocabulary = nar.load(tmp_path).tokenizer
    assert vocabulary.encode(["the dog the", ""], prompt=True) == [[1, 3, 4, 3], [1]]
    assert vocabulary.decode([[1, 3, 4, 2, 4]]) == ["the dog"]
    assert vocabulary.pieces([4, 2, 39]) == ["dog", "</s>", "<39>"]


@pytest.mark.parametrize(("begin", "kept"), [("<s>", [1, 4, 3]), ("", [3, 4, 3])], ids=str)
def test_a_prompt_is_cut_after_what_its_tokenizer_begins_with(tmp_path, begin, kept):
    tiny.write(tmp_path, "llama")
    fast_vocabulary(tmp_path, ["<pad>", "<s>", "</s>", "the", "dog"], begin=begin)
    translator = nar.load(tmp_path)
    assert translator.cut(translator.encode(["dog the the dog the"])[0], 3) == kept


def fast_vocabulary(directory, words, *, begin="<s>"):
    """A `tokenizer.json` of whole words, which begins texts with BOS, or with nothing."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A".strip(), special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))


def test_a_benchmark_takes_it_without_more(directory):
    system = System.load(directory, ["jacobi"])
    assert (system.name, system.training, system.max_length) == ("m", "unknown", 32)
    assert system.translator.weights == nar.load(directory).weights


# -------------------------------------------------------------------------------------- bad input
@pytest.fixture
def directory(tmp_path):
    """A tiny Marian model."""
    tiny.write(tmp_path / "m", "marian")
    return tmp_path / "m"


def change(directory, file="config.json", drop=(), **fields):
    path = directory / file
    fields = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: x for name, x in fields.items() if name not in drop}))


def edit(directory, add=(), drop=(), shape=None):
    tensors = load_file(directory / "model.safetensors")
    shapes = dict.fromkeys(add, (2,)) | (shape or {})
    tensors |= {name: np.zeros(size, np.float32) for name, size in shapes.items()}
    save_file({n: t for n, t in tensors.items() if n not in drop}, directory / "model.safetensors")


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
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "lacks the field 'factor'"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"suppress_tokens": 5}, "field of its configs is damaged"),
        ("llama", {"bad_words_ids": [[40]]}, "banned=40: it must be in 0..39"),
        ("llama", {"eos_token_id": [2, "x"]}, "field of its configs is damaged"),
        ("llama", {"eos_token_id": []}, "lacks the field 'eos_token_id'"),
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
    refused(tmp_path / "l", r"tokenizer\.json has 52 pieces, .* 40 embeddings")


def test_a_prompt_longer_than_the_context_is_refused(tmp_path):
    tiny.write(tmp_path, "llama")
    translator = nar.load(tmp_path)
    with pytest.raises(NarError, match="line 2: longer than the 32 tokens that fit"):
        translator.translate(["the", "the dog " * 20])
    with pytest.raises(NarError, match="max_length=8 after a prompt of 60 positions"):
        nar.decode(nar.Greedy(max_length=8), translator.model, Source.of([[5] * 60]))
