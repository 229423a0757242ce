"""Texts into tokens and back, as transformers' own tokenizers do it (`make_texts.py`)."""

import pytest

from nar import TransformerConfig
from nar.pretrained.vocabulary import read_vocabulary
from tests.pretrained import tiny

CASES, MODELS = tiny.texts()
IDS = {"t5": {"pad": 0, "bos": 0, "eos": 1}, "llama": {"bos": 1, "eos": 2}, "marian": {"eos": 0},
       "qwen2": {"bos": 0, "eos": 2}}  # fmt: skip


def vocabulary_of(directory, name, **files):
    case = CASES[name]
    tiny.write_files(directory, {**case["files"], **files}, MODELS)
    config = TransformerConfig(
        vocab_size=case["embeddings"], **{"pad": case["embeddings"] - 1, **IDS[case["kind"]]}
    )
    return read_vocabulary(directory, case["kind"], config)


@pytest.mark.parametrize("name", CASES)
def test_token_ids_are_those_of_transformers(tmp_path, name):
    case, vocabulary = CASES[name], vocabulary_of(tmp_path, name)
    prompt = case["kind"] in ("llama", "qwen2")
    found = vocabulary.encode(case["texts"], prompt=prompt)
    for text, ids, wanted in zip(case["texts"], found, case["ids"], strict=True):
        assert (text, ids) == (text, wanted or [IDS[case["kind"]]["bos"]])
    assert vocabulary.vocab_size == case["embeddings"]
    if not prompt:
        assert vocabulary.encode_outputs(case["texts"]) == case["outputs"]


@pytest.mark.parametrize("name", CASES)
def test_texts_are_those_of_transformers(tmp_path, name):
    """Without the end, at which ours stop, and without unknown symbols, which ours show as such."""
    case, vocabulary = CASES[name], vocabulary_of(tmp_path, name)
    ends, unk = IDS[case["kind"]]["eos"], vocabulary.number("<unk>")
    rows = [[token for token in row if token != ends] for row in case["ids"]]
    known = [i for i, row in enumerate(rows) if unk not in row]
    assert len(known) >= 2
    assert vocabulary.decode([rows[i] for i in known]) == [case["decoded"][i] for i in known]
    assert vocabulary.decode([]) == []
