"""Where an experiment's text comes from."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

from nar.data.grammar import Grammar, GrammarConfig
from nar.data.text import Corpus, Pairs
from nar.errors import NarError
from nar.training.distillation import load_distilled

Training = Literal["raw", "distilled"]
"""Whether the targets that are trained on are people's or a model's."""

DISTILLED = "distilled"
"""What a teacher makes of its training and validation text, in its run's directory."""

SPLITS = ("train", "valid", "test")
"""The parts that every corpus has; what they are called on disk is the corpus' own business."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrammarData:
    """The built-in grammar, English to German; needs no files.

    Attributes:
        sizes: sentences in train, valid and test.
        grammar: what they are like.
    """

    training: ClassVar[Training] = "raw"
    target: ClassVar[str] = "de"
    sizes: tuple[int, int, int] = (20_000, 500, 500)
    grammar: GrammarConfig = GrammarConfig()

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        return f"the built-in grammar's {split} set"

    def open(self, split: str, data_dir: pathlib.Path | None, runs: pathlib.Path) -> Corpus:
        """One of `SPLITS`; a small one is derived once, however often it is read."""
        corpus = Grammar(split, self.sizes[SPLITS.index(split)], self.grammar)
        return _derived(corpus) if len(corpus) <= SMALL else corpus


SMALL = 100_000
"""So many pairs of the grammar are kept in memory, about 20 MB; a pair takes 0.2 ms to derive."""


@functools.lru_cache(maxsize=len(SPLITS))
def _derived(corpus: Grammar) -> list[tuple[str, str]]:
    return list(corpus)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderData:
    """A folder of `<split>.<language>` files below the data directory.

    Attributes:
        folder: its name.
        source, target: languages, the files' endings.
        teacher_target: the ending of a teacher's outputs, where they are given: they are trained on
            in place of `target`. The test set stays people's.
        splits: what train, valid and test are called.
    """

    folder: str
    source: str
    target: str
    teacher_target: str | None = None
    splits: tuple[str, str, str] = SPLITS

    @property
    def training(self) -> Training:
        """Whose targets are trained on."""
        return "distilled" if self.teacher_target else "raw"

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        name, target = self._parts(split)
        return f"{self.folder}/{name} ({self.source} to {target})"

    def open(self, split: str, data_dir: pathlib.Path | None, runs: pathlib.Path) -> Corpus:
        """One of `SPLITS`.

        Raises:
            NarError: no data directory was given, or files are missing or damaged.
        """
        if data_dir is None:
            raise NarError(f"this experiment reads {self.folder}/: say where with --data-dir")
        name, target = self._parts(split)
        return Pairs(data_dir / self.folder, name, self.source, target)

    def _parts(self, split: str) -> tuple[str, str]:
        """What a split and its target's language are called."""
        target = self.target if split == "test" else self.teacher_target or self.target
        return self.splits[SPLITS.index(split)], target


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsData:
    """A translation set of TensorFlow Datasets, prepared once by `python -m nar.data.tfds`.

    Attributes:
        name: such as "wmt14_translate/de-en".
        source, target: languages of the set, in either direction.
        splits: what train, valid and test are called.
    """

    training: ClassVar[Training] = "raw"
    name: str
    source: str
    target: str
    splits: tuple[str, str, str] = ("train", "validation", "test")

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        name = self.splits[SPLITS.index(split)]
        return f"{self.name}/{name} ({self.source} to {self.target})"

    def open(self, split: str, data_dir: pathlib.Path | None, runs: pathlib.Path) -> Corpus:
        """One of `SPLITS`.

        Raises:
            NarError: the set has not been prepared.
        """
        from nar.data.tfds import TfdsPairs

        name = self.splits[SPLITS.index(split)]
        return TfdsPairs(self.name, name, self.source, self.target, data_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilledData:
    """Another experiment's text in its model's words; the test set stays people's.

    Attributes:
        teacher: the experiment whose run holds what `python -m experiments distill` makes.
        original: the text itself.
    """

    training: ClassVar[Training] = "distilled"
    teacher: str
    original: "Data"

    @property
    def target(self) -> str:
        """The original's target language."""
        return self.original.target

    def describe(self, split: str) -> str:
        """What reports call one of `SPLITS`."""
        found = self.original.describe(split)
        return found if split == "test" else f"{found}, translated by {self.teacher}"

    def open(self, split: str, data_dir: pathlib.Path | None, runs: pathlib.Path) -> Corpus:
        """One of `SPLITS`; the teacher's run lies in `runs`.

        Raises:
            NarError: the teacher has not translated this text yet, or the text is missing.
        """
        original = self.original.open(split, data_dir, runs)
        if split == "test":
            return original
        try:
            return load_distilled(runs / self.teacher / DISTILLED, split, original)
        except NarError as error:
            raise NarError(f"{error}: python -m experiments distill {self.teacher}") from error


Data = GrammarData | FolderData | TfdsData | DistilledData
"""Any of them."""
