"""Where an experiment's text comes from."""

import dataclasses
import pathlib

from nar.core import NarError
from nar.data.grammar import Grammar, GrammarConfig
from nar.data.text import Corpus, Pairs

SPLITS = ("train", "valid", "test")
"""The parts that every corpus has; what they are called on disk is the corpus' own business."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrammarData:
    """The built-in grammar, English to German; needs no files.

    Attributes:
        sizes: sentences in train, valid and test.
        grammar: what they are like.
    """

    sizes: tuple[int, int, int] = (20_000, 500, 500)
    grammar: GrammarConfig = GrammarConfig()

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        return f"the built-in grammar's {split} set"

    def open(self, split: str, data_dir: pathlib.Path | None) -> Corpus:
        """One of `SPLITS`."""
        return Grammar(split, self.sizes[SPLITS.index(split)], self.grammar)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderData:
    """A folder of `<split>.<language>` files below the data directory.

    Attributes:
        folder: its name.
        source, target: languages, the files' endings.
        splits: what train, valid and test are called.
    """

    folder: str
    source: str
    target: str
    splits: tuple[str, str, str] = SPLITS

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        name = self.splits[SPLITS.index(split)]
        return f"{self.folder}/{name} ({self.source} to {self.target})"

    def open(self, split: str, data_dir: pathlib.Path | None) -> Corpus:
        """One of `SPLITS`.

        Raises:
            NarError: no data directory was given, or files are missing or damaged.
        """
        if data_dir is None:
            raise NarError(f"this experiment reads {self.folder}/: say where with --data-dir")
        return Pairs(
            data_dir / self.folder, self.splits[SPLITS.index(split)], self.source, self.target
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsData:
    """A translation set of TensorFlow Datasets, prepared once by `python -m nar.data.tfds`.

    Attributes:
        name: such as "wmt14_translate/de-en".
        source, target: languages of the set, in either direction.
        splits: what train, valid and test are called.
    """

    name: str
    source: str
    target: str
    splits: tuple[str, str, str] = ("train", "validation", "test")

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        name = self.splits[SPLITS.index(split)]
        return f"{self.name}/{name} ({self.source} to {self.target})"

    def open(self, split: str, data_dir: pathlib.Path | None) -> Corpus:
        """One of `SPLITS`.

        Raises:
            NarError: the set has not been prepared.
        """
        from nar.data.tfds import TfdsPairs

        name = self.splits[SPLITS.index(split)]
        return TfdsPairs(self.name, name, self.source, self.target, data_dir)
