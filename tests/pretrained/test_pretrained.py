"""Imported models against transformers' own numbers, kept in `golden/` by `make_golden.py`."""

import json

import chex
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nar
from nar import TransformerConfig
from nar.bench.protocol import System
from nar.core import NO_EOS, Source
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.files import read_json
from nar.model.positions import frequencies
from nar.pretrained import LAYOUTS, llama
from nar.pretrained.generation import with_generation
from nar.testing.oracles import teacher_forced
from tests.pretrained import tiny
from tests.pretrained.tiny import change, edit, fast_vocabulary

ENCODERS = [name for name, (kind, _) in tiny.CASES.items() if kind in ("Marian", "T5", "MT5")]


def sources(count=None):
    return Source.of(tiny.rows(36)[:count], width=tiny.WIDTH)


def rows(tokens, length):
    return [row[:n].tolist() for row, n in zip(np.asarray(tokens), np.asarray(length), strict=True)]


# ----------------------------------------------------------------------- the same as transformers
def test_every_layout_has_its_golden_file():
    kinds = {json.loads(str(tiny.read(name)["config"]))["model_type"] for name in tiny.CASES}
    assert kinds == set(LAYOUTS)


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
    ended = (golden["greedy_length"] < tiny.MOST).mean()
    assert 0.2 < ended < 0.9 if model.spec.eos != NO_EOS else ended == 0


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


@pytest.mark.parametrize("number", range(len(tiny.VARIANTS)))
def test_configs_mean_what_they_mean_to_transformers(tmp_path, number):
    """Windows, rotary positions and ends, as transformers understood them."""
    golden = json.loads(tiny.CONFIGS.read_text().splitlines()[number])
    tiny.write_variant(tmp_path, number)
    found = read_json(tmp_path / "config.json")
    defaults = LAYOUTS[found["model_type"]].defaults
    found, rules = with_generation(tmp_path, {**defaults, **found})
    ends = (found.get("eos_token_id"), *rules["also_eos"])
    wanted = [end for end in golden["ends"] if 0 <= end < 40] or [None]
    assert [*ends] == wanted
    if "windows" not in golden:
        return
    longest = found["max_position_embeddings"]
    full = [None] * found["num_hidden_layers"]
    windows = [w if (w or longest) < longest else None for w in golden["windows"]]
    assert [*llama.windows(found)] == (windows if windows != full else [])
    config = TransformerConfig(
        vocab_size=40, d_model=16, heads=4, head_dim=found.get("head_dim"), positions="rotary",
        **llama.rope(found),
    )  # fmt: skip
    np.testing.assert_allclose(frequencies(config), golden["frequencies"], rtol=2e-6)
    np.testing.assert_allclose(config.rope_magnitude, golden["magnitude"], rtol=1e-6)


# ------------------------------------------------------------------------------------- the files
@pytest.mark.parametrize(
    ("name", "table", "copies"),
    [
        ("marian", "model.shared.weight", ["model.encoder.embed_tokens.weight", "lm_head.weight"]),
        ("t5", "shared.weight", ["decoder.embed_tokens.weight", "lm_head.weight"]),
        ("qwen2", "model.embed_tokens.weight", ["lm_head.weight"]),
    ],
)
def test_a_table_that_is_stored_twice_is_one(tmp_path, name, table, copies):
    tiny.write(tmp_path, name)
    once = nar.load(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {copy: tensors[table] for copy in copies}, path)
    twice = nar.load(tmp_path)
    assert twice.weights == once.weights
    assert twice.model.config == once.model.config
    other = tensors[table].copy()
    other[-1, -1] += 1e-6  # one number is another: it is not the same table
    save_file(tensors | {copies[-1]: other}, path)
    apart = nar.load(tmp_path).model
    np.testing.assert_array_equal(apart.output.table[...], other)
    np.testing.assert_array_equal(apart.embedding.table[...], tensors[table])


def test_one_file_wins_over_an_index(tmp_path):
    tiny.write(tmp_path, "llama", parts=2)
    for part in tmp_path.glob("model-*"):
        tensors = {name: 2 * x for name, x in load_file(part).items()}
        save_file(tensors, part)
    stale = nar.load(tmp_path)
    tiny.write(tmp_path, "llama")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    found = nar.load(tmp_path)
    tiny.write(tmp_path / "alone", "llama")
    assert found.weights == nar.load(tmp_path / "alone").weights != stale.weights


def test_names_may_have_their_prefix_once_too_often(tmp_path):
    tiny.write(tmp_path, "llama")
    model, path = nar.load(tmp_path).model, tmp_path / "model.safetensors"
    save_file({f"model.{name}": x for name, x in load_file(path).items()}, path)
    chex.assert_trees_all_equal(nar.load(tmp_path).model, model)


def test_stored_positions_of_marian_are_sinusoids(directory):
    names = [f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")]
    place = np.arange(32)[:, None] / 10_000 ** (np.arange(8) / 8)
    table = np.concatenate([np.sin(place), np.cos(place)], axis=1).astype(np.float16)
    edit(directory, values=dict.fromkeys(names, table))
    nar.load(directory)
    edit(directory, values={names[1]: table[::-1]})
    with pytest.raises(NarError, match=rf"{names[1]} holds no sinusoids"):
        nar.load(directory)


def test_minus_infinity_may_ban_a_token(directory):
    bias = np.array([[0, -np.inf, *[0] * 38]], np.float32)
    edit(directory, values={"final_logits_bias": bias})
    assert nar.load(directory).model.logits_bias[...].tolist() == bias[0].tolist()


def test_an_adapter_is_not_passed_over_in_silence(directory):
    (directory / "adapter_config.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"adapter_config\.json, and is read without it"):
        nar.load(directory)


# ----------------------------------------------------------------------------------- vocabularies
def test_pieces_of_marian(directory):
    vocabulary = nar.load(directory).tokenizer
    numbers = json.loads((directory / "vocab.json").read_text())
    (row,) = vocabulary.encode([">>de<<the dogs"])
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


def test_tokens_beyond_the_table_are_missed_when_they_are_fed(tmp_path):
    tiny.write(tmp_path, "llama")
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(3, 40))]
    fast_vocabulary(tmp_path, words, added=["<think>", "<tool>"])
    vocabulary = nar.load(tmp_path).tokenizer
    assert vocabulary.vocab_size == 40
    assert vocabulary.encode(["w3 w39"]) == [[1, 3, 39]]
    with pytest.raises(NarError, match=r"holds <tool>, which was added .* of 40 tokens only"):
        vocabulary.encode(["w3", "w4 <tool> w5"])


@pytest.mark.parametrize("name", ["marian", "t5"])
def test_sources_end_where_outputs_do_not(tmp_path, name):
    tiny.write(tmp_path, name)
    text = ["the dog"]
    before = nar.load(tmp_path).tokenizer.encode(text)
    change(tmp_path, "generation_config.json", drop=["eos_token_id"])
    endless = nar.load(tmp_path)
    assert endless.model.spec.eos == NO_EOS
    end = before[0][-1] if name == "marian" else 3  # of its own vocabulary
    assert endless.tokenizer.encode(text) == [[*before[0][:-1], end]]


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
