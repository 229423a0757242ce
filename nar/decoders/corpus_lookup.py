"""Lookup in a given corpus: retrieval-based speculative decoding (He et al. 2024)."""

import dataclasses

from nar.core import role
from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters import corpus
from nar.drafters.corpus import CORPUS, SuffixArray
from nar.errors import IncompatibleModel, NarError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusLookup(SpeculativeDecoder):
    """Guesses what followed the last tokens in a corpus; free of model calls.

    Needs a bundle: `Bundle.of(target=..., corpus=SuffixArray.of(rows of token ids))`.

    Attributes:
        guesses: the most tokens to copy.
        ngram: the most last tokens to look for; the longest match wins.
        candidates: how many of its occurrences are copied.
    """

    family = "lookup"
    guesses: int = 5
    ngram: int = 5
    candidates: int = 1

    @property
    def drafter(self):
        """The corpus."""
        return corpus.CorpusLookup(
            guesses=self.guesses, ngram=self.ngram, candidates=self.candidates
        )

    @property
    def reads(self):
        """Also the corpus."""
        return (*super().reads, CORPUS)

    def check(self, model, source):
        """Also: there is a corpus, of tokens that the model knows."""
        super().check(model, source)
        found, vocab_size = role(model, CORPUS), role(model).spec.vocab_size
        if not isinstance(found, SuffixArray):
            raise NarError(
                f"the bundle's corpus is a {type(found).__name__}: it must be a SuffixArray"
            )
        if found.vocab_size > vocab_size:
            raise IncompatibleModel(
                f"the corpus holds token {found.vocab_size - 1}: the model has {vocab_size} tokens"
            )
