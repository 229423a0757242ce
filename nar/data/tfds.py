"""Translation sets of TensorFlow Datasets by name, read without TensorFlow.

    python -m nar.data.tfds wmt14_translate/de-en --data-dir DIR

downloads and prepares a set once, as array_record files; `TfdsPairs` reads them.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

from nar.data.text import hash_files
from nar.errors import NarError, nearest

_FORMAT = "array_record"  # the only one that is read at random without TensorFlow
_SECONDS = 2.0  # to wait for a host when asking whether we are online


class TfdsPairs:
    """Random access to a prepared translation set, in either direction. Never downloads.

    Args:
        name: for example "wmt14_translate/de-en" or "ted_hrlr_translate/pt_to_en:1.0.0"; without a
            version, the newest one that is there.
        split: for example "train", or a part of it: "train[:10%]".
        source_language: one of the set's languages.
        target_language: another one.
        data_dir: where sets are prepared; by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        NarError: the set is not prepared, damaged, or not array_record; there is no such split or
            language (those that there are, nearest first); or the split is empty.
    """

    def __init__(
        self,
        name: str,
        split: str,
        source_language: str,
        target_language: str,
        data_dir: str | os.PathLike[str] | None = None,
    ):
        import tensorflow_datasets as tfds

        folder = _find(name, _data_dir(data_dir))
        try:
            builder: Any = tfds.builder_from_directory(folder)
        except ValueError as error:
            raise NarError(f"{folder} is damaged: {error}") from error
        info = builder.info
        if info.file_format is None or info.file_format.value != _FORMAT:
            raise NarError(
                f"{folder} is prepared as {info.file_format}, and only {_FORMAT} can be "
                f"read: delete it, and prepare it with {_command(name)}"
            )
        for language in (source_language, target_language):
            if language not in info.features:
                there = nearest(language, info.features)
                raise NarError(f"{name} has no language {language!r}; it has: {there}")
        whole = split.partition("[")[0]
        if whole not in info.splits:
            raise NarError(f"{name} has no split {whole!r}; it has: {nearest(whole, info.splits)}")
        try:
            count = info.splits[split].num_examples
        except (AssertionError, ValueError) as error:
            raise NarError(f"{name} has no part {split!r}: {error}") from error
        if not count:
            raise NarError(f"{name}: the split {split!r} is empty")
        self._languages = source_language, target_language
        self._split, self._files = split, info.splits[whole].filepaths
        self._data = builder.as_data_source(split)

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[str, str]:
        """The source and the target of a pair."""
        record = self._data[range(len(self))[index]]
        source, target = (_text(record[language]) for language in self._languages)
        return source, target

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the split's files, its name and the languages."""
        content = repr((hash_files(*self._files), self._split, self._languages))
        return hashlib.sha256(content.encode()).hexdigest()


def prepare(name: str, data_dir: pathlib.Path | None = None) -> None:
    """Downloads a set and prepares it as array_record files, unless it is there already.

    Args:
        name: for example wmt14_translate/de-en.
        data_dir: where to; by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Raises:
        NarError: there is no such set, TensorFlow is needed to unpack it and is not installed, or
            its hosts do not answer: at once, instead of trying again for minutes.
    """
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # registers the WMT sets

    base, _, config = name.partition(":")[0].partition("/")
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:
        raise NarError(f"TFDS has no set {base!r}; it has: {nearest(base, known)}")
    configs = tfds.builder_cls(base).builder_configs
    if config and config not in configs:
        raise NarError(f"{base} has no {config!r}; it has: {nearest(config, configs)}")
    folder = _data_dir(data_dir)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format=_FORMAT)
    except (AssertionError, ValueError) as error:  # its version, or the format it is prepared in
        raise NarError(f"{name} cannot be prepared in {folder}: {error}") from error
    if not builder.is_prepared():
        _check_can_download(name, builder.url_infos or (), folder / "downloads" / base)
        builder.download_and_prepare(file_format=_FORMAT)


def _check_can_download(name: str, urls: Iterable[str], downloads: pathlib.Path) -> None:
    urls = list(urls)
    packed = any(re.search(r"\.(tar|tgz|gz|zip|bz2|xz)\b", url) for url in urls)
    if packed and not importlib.util.find_spec("tensorflow"):
        raise NarError(
            f"{name} comes in archives that TensorFlow unpacks: install the extra nar[tf]"
        )
    first_of_host = {urllib.parse.urlsplit(url).netloc: url for url in urls}
    begun = any(downloads.rglob("*.INFO"))  # written beside every archive that has arrived
    if urls and not begun and not any(map(_answers, first_of_host.values())):
        raise NarError(
            f"{name} cannot be downloaded: {', '.join(first_of_host)} cannot be reached. Prepare "
            f"it where there is a network ({_command(name)}), and copy the folder here"
        )


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an answer, if not the one that was asked for
    except OSError:
        return False
    return True


def _find(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder of a prepared set's newest version."""
    path, _, version = name.partition(":")
    found = {file.parent for file in data_dir.glob(f"{path}/{version or '*'}/dataset_info.json")}
    if not found:
        there = {
            str(file.parent.parent.relative_to(data_dir))
            for depth in ("*/*", "*/*/*")
            for file in data_dir.glob(f"{depth}/dataset_info.json")
        }
        raise NarError(
            f"{name} is not prepared in {data_dir}; what is there: {nearest(name, there)}. "
            f"To prepare it: {_command(name)}"
        )
    return max(found, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)])


def _data_dir(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(data_dir).expanduser()


def _command(name: str) -> str:
    return f"python -m nar.data.tfds {name}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    import tyro

    from nar.ending import one_line_errors

    with one_line_errors():
        tyro.cli(tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(prepare))
