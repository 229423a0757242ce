import shutil
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds

import nar.data.tfds
from nar.data.encoded import encode_corpus
from nar.data.text import texts
from nar.data.tfds import TfdsPairs, prepare
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError

TRAIN = [(f"größe {i} ähnlich", f"size {i} similar") for i in range(40)]


class TinyTranslate(tfds.core.GeneratorBasedBuilder):
    """A few pairs; TFDS knows it by name as soon as the class exists."""

    VERSION = tfds.core.Version("1.9.0")
    SUPPORTED_VERSIONS = [tfds.core.Version("1.10.0")]  # noqa: RUF012
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="de-en")]  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.Translation(languages=("de", "en"))
        )

    def _split_generators(self, manager):
        return {"train": self._generate_examples(TRAIN), "test": self._generate_examples(TRAIN[:3])}

    def _generate_examples(self, pairs):
        for i, (de, en) in enumerate(pairs):
            yield i, {"de": de, "en": en}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare("tiny_translate/de-en", folder)
    return folder


@pytest.fixture(autouse=True)
def at_once():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 5  # a download would try again for minutes


def test_both_directions(data_dir):
    forth = TfdsPairs("tiny_translate/de-en", "train", "de", "en", data_dir)
    back = TfdsPairs("tiny_translate/de-en", "train", "en", "de", data_dir)
    assert len(forth) == len(back) == 40
    assert sorted(forth) == sorted(TRAIN)  # TFDS shuffles once, when it prepares
    assert [(target, source) for source, target in back] == list(forth)
    assert forth[-1] == forth[39]
    with pytest.raises(IndexError):
        forth[40]


def test_parts_of_splits(data_dir):
    whole = TfdsPairs("tiny_translate/de-en", "train", "de", "en", data_dir)
    part = TfdsPairs("tiny_translate/de-en", "train[:25%]", "de", "en", data_dir)
    assert list(part) == [whole[i] for i in range(10)]
    with pytest.raises(NarError, match="empty"):
        TfdsPairs("tiny_translate/de-en", "train[:0]", "de", "en", data_dir)
    with pytest.raises(NarError, match="no part 'train"):
        TfdsPairs("tiny_translate/de-en", "train[half]", "de", "en", data_dir)


def test_text_may_be_bytes_or_str(data_dir):
    pairs = TfdsPairs("tiny_translate/de-en", "test", "de", "en", data_dir)
    assert isinstance(pairs._data[0]["de"], bytes)
    assert sorted(pairs) == TRAIN[:3]
    pairs._data = [{"de": "größe", "en": "size"}]  # as tfds.testing.mock_data gives them
    assert list(pairs) == [("größe", "size")]


def test_fingerprints(data_dir):
    def one(*args):
        return TfdsPairs("tiny_translate/de-en", *args, data_dir).fingerprint

    assert one("train", "de", "en") == one("train", "de", "en")
    different = [("train", "de", "en"), ("train", "en", "de"), ("test", "de", "en")]
    assert len({one(*args) for args in [*different, ("train[:5]", "de", "en")]}) == 4


def test_it_is_a_corpus(data_dir, tmp_path):
    pairs = TfdsPairs("tiny_translate/de-en", "train", "de", "en", data_dir)
    tokenizer = Tokenizer.train(texts(pairs), vocab_size=60)
    encoded = encode_corpus(pairs, tokenizer, tmp_path)
    assert [tuple(tokenizer.decode(pair)) for pair in encoded] == list(pairs)


def test_the_newest_version_is_read_unless_one_is_named(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    prepare("tiny_translate/de-en:1.10.0", tmp_path)
    for name, version in (("", "1.10.0"), (":1.9.0", "1.9.0"), (":1.10.0", "1.10.0")):
        pairs = TfdsPairs("tiny_translate/de-en" + name, "test", "de", "en", tmp_path)
        assert version in str(pairs._files[0])


def test_preparing_again_does_nothing(data_dir):
    file = next(data_dir.rglob("*train.array_record*"))
    before = file.stat().st_mtime_ns
    prepare("tiny_translate/de-en", data_dir)
    assert file.stat().st_mtime_ns == before


def test_wrong_names_are_answered_with_right_ones(data_dir):
    with pytest.raises(NarError, match=r"no language 'nl'; it has: (de, en|en, de)"):
        TfdsPairs("tiny_translate/de-en", "train", "nl", "en", data_dir)
    with pytest.raises(NarError, match="no split 'trian'; it has: train, test"):
        TfdsPairs("tiny_translate/de-en", "trian", "de", "en", data_dir)
    with pytest.raises(
        NarError, match=r"not prepared.*there: tiny_translate/de-en.*nar\.data\.tfds"
    ):
        TfdsPairs("wmt14_translate/de-en", "train", "de", "en", data_dir)
    with pytest.raises(NarError, match="no set 'wmt14_translat'; it has: wmt14_translate, "):
        prepare("wmt14_translat/de-en", data_dir)
    with pytest.raises(NarError, match=r"wmt14_translate has no 'en-de'; it has: .*de-en"):
        prepare("wmt14_translate/en-de", data_dir)
    with pytest.raises(NarError, match=r"9\.9\.9"):
        prepare("tiny_translate/de-en:9.9.9", data_dir)


def test_damage_is_named(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    next(tmp_path.rglob("features.json")).unlink()
    with pytest.raises(NarError, match=r"1\.9\.0 is damaged"):
        TfdsPairs("tiny_translate/de-en", "train", "de", "en", tmp_path)


def test_other_formats_are_refused(tmp_path):
    builder = tfds.builder("tiny_translate/de-en", data_dir=tmp_path, file_format="parquet")
    builder.download_and_prepare()
    with pytest.raises(NarError, match=r"prepared as .*PARQUET.*only array_record"):
        TfdsPairs("tiny_translate/de-en", "train", "de", "en", tmp_path)
    with pytest.raises(NarError, match="PARQUET"):
        prepare("tiny_translate/de-en", tmp_path)


def test_archives_need_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(nar.data.tfds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NarError, match=r"TensorFlow.*nar\[tf\]"):
        prepare("wmt14_translate/de-en", tmp_path)


def test_offline_is_noticed_at_once(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(nar.data.tfds.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(NarError, match=r"statmt\.org cannot be reached"):
        prepare("wmt14_translate/de-en", tmp_path)


def test_the_command(tmp_path):
    command = [
        sys.executable,
        "-m",
        "nar.data.tfds",
        "wmt14_translat/de-en",
        "--data-dir",
        tmp_path,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: TFDS has no set 'wmt14_translat'; it has: wmt14_trans")


def test_reading_needs_neither_tensorflow_nor_the_code_of_the_set(data_dir):
    code = f"""
import sys
from nar.data.text import texts
from nar.data.tfds import TfdsPairs
assert "tensorflow_datasets" not in sys.modules  # loaded where it is used
print(sorted(TfdsPairs("tiny_translate/de-en", "test", "de", "en", {str(data_dir)!r})))
assert "tensorflow" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(TRAIN[:3])
