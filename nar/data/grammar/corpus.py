"""The grammar as a corpus: splits, random access, exact entropies, references."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from math import log2

from nar.data.grammar.choices import Choices, entropy, probability, vectors
from nar.data.grammar.derivation import Derivation
from nar.data.grammar.dice import Dice
from nar.data.grammar.lexicon import lexicon
from nar.data.grammar.sentences import Sentence

SPLITS = ("train", "valid", "test")
MOST_CLAUSES = 8


@dataclass(frozen=True, kw_only=True)
class GrammarConfig:
    """What the sentences are like.

    Attributes:
      seed: another seed, another corpus.
      length: the most clauses a sentence has, 1 to 8; their number is uniform from 1.
      vocabulary: the share of the lexicon that is in use, above 0 and at most 1.
      ambiguity: the probability, 0 to 1, that a choice among German alternatives is left to
        chance. It does not touch the English side: corpora that differ in it are parallel.

    Raises:
      ValueError: a value is out of its range.
    """

    seed: int = 0
    length: int = 2
    vocabulary: float = 0.25
    ambiguity: float = 0.0

    def __post_init__(self):
        if not isinstance(self.seed, int):
            raise ValueError(f"seed must be an integer, not {self.seed!r}")
        if not isinstance(self.length, int) or not 1 <= self.length <= MOST_CLAUSES:
            raise ValueError(
                f"length must be a number of clauses from 1 to {MOST_CLAUSES}, not {self.length!r}"
            )
        if not isinstance(self.vocabulary, int | float) or not 0 < self.vocabulary <= 1:
            raise ValueError(
                f"vocabulary must be a share above 0 and at most 1, not {self.vocabulary!r}"
            )
        if not isinstance(self.ambiguity, int | float) or not 0 <= self.ambiguity <= 1:
            raise ValueError(f"ambiguity must be from 0 to 1, not {self.ambiguity!r}")


def split_of(english: str) -> str:
    """The split that an English sentence belongs to: a hash of its text and of nothing else."""
    bucket = int.from_bytes(blake2b(english.encode(), digest_size=8).digest(), "big") % 10
    return {0: "test", 1: "valid"}.get(bucket, "train")


@dataclass(frozen=True)
class Grammar:
    """One split of a corpus: `len(corpus)`, and `corpus[i]` is (English, German).

    Every item is computed when it is asked for, from (seed, split, i) alone. It is the first of
    the draws (seed, split, i, 0), (seed, split, i, 1), ... whose English sentence `split_of` puts
    into this split. So no English sentence is in two splits, of whatever seeds, sizes and
    configurations; nothing is stored, and an item costs one draw or two in train, ten elsewhere.

    Attributes:
      split: train, valid or test: eight, one and one in ten of all sentences.
      size: the number of items; the longer corpus begins with the shorter one.
      config: what the sentences are like.

    Raises:
      ValueError: no such split, or a size that is not positive.
    """

    split: str
    size: int
    config: GrammarConfig = field(default_factory=GrammarConfig)

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {self.split!r}")
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size must be a positive number of sentences, not {self.size!r}")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[str, str]:
        sentence = self.derivation(index)
        return sentence.english(), sentence.german(self._coins(index))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self[index] for index in range(self.size))

    def derivation(self, index: int) -> Sentence:
        """The derivation of item `index`; negative indices count from the end.

        Raises:
          IndexError: there is no such item.
        """
        config, index, attempt = self.config, self._valid(index), 0
        words = lexicon(config.vocabulary)
        while True:
            key = f"{config.seed}/{self.split}/{index}/{attempt}"
            sentence = Derivation(key, words, config.length).sentence()
            if split_of(sentence.english()) == self.split:
                return sentence
            attempt += 1

    def entropy(self, index: int) -> float:
        """H(German | the English sentence of item `index`), exactly, in bits."""
        choices = Choices()
        self.derivation(index).german(choices)
        return sum(entropy(self.config.ambiguity, size) for size in choices.sizes)

    def log2_probability(self, index: int) -> float:
        """log2 P(the German sentence of item `index` | its English sentence), in bits."""
        choices = self._coins(index)
        self.derivation(index).german(choices)
        return sum(
            log2(probability(self.config.ambiguity, size, picked))
            for size, picked in zip(choices.sizes, choices.picked, strict=True)
        )

    def alternatives(self, index: int) -> Iterator[tuple[str, float]]:
        """All the translations that item `index` may have, each with its probability.

        The usual one comes first, then those with one departure from it, and so on. There can be
        very many, so they are made one by one; at ambiguity 0 there is one.
        """
        sentence, ambiguity = self.derivation(index), self.config.ambiguity
        usual = Choices()
        german = sentence.german(usual)
        if ambiguity == 0:
            yield german, 1.0
            return
        for vector in vectors(usual.sizes):
            chance = 1.0
            for size, picked in zip(usual.sizes, vector, strict=True):
                chance *= probability(ambiguity, size, picked)
            yield sentence.german(Choices(lambda number, _, vector=vector: vector[number])), chance

    def references(self, index: int, most: int = 64) -> list[str]:
        """The German of item `index` first, then other translations it may have, at most `most`.

        Raises:
          ValueError: `most` is less than 1.
        """
        if most < 1:
            raise ValueError(f"most must be a positive number of references, not {most}")
        own = self[index][1]
        others = (german for german, _ in self.alternatives(index) if german != own)
        return [own, *islice(others, most - 1)]

    def _valid(self, index: int) -> int:
        position = operator.index(index)
        if not -self.size <= position < self.size:
            raise IndexError(f"item {position} of a corpus of {self.size} sentences")
        return position % self.size

    def _coins(self, index: int) -> Choices:
        """The choices of item `index`, drawn apart from its English side."""
        dice = Dice(f"{self.config.seed}/{self.split}/{self._valid(index)}/german")

        def pick(number: int, size: int) -> int:
            # Both are always rolled: the corpora of two ambiguities differ no more than they must.
            option, left_to_chance = dice.below(size), dice.chance(self.config.ambiguity)
            return option if left_to_chance else 0

        return Choices(pick)
