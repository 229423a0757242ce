"""Imported models against transformers' own numbers, kept in `golden/` by `make_golden.py`."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nar
from nar.bench.protocol import System
from nar.core import Source
from nar.data.tokenizer import Tokenizer
from nar.pretrained import LAYOUTS
from nar.testing.oracles import teacher_forced
from tests.pretrained import tiny
from tests.pretrained.tiny import change, edit, fast_vocabulary

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


def test_a_benchmark_takes_it_without_more(directory):
    system = System.load(directory, ["jacobi"])
    assert (system.name, system.training, system.max_length) == ("m", "unknown", 32)
    assert system.translator.weights == nar.load(directory).weights
