"""Prompt lookup decoding: copies from the prompt and the output (Saxena 2023; Yang et al. 2023)."""

import dataclasses

from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters.lookup import Lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptLookup(SpeculativeDecoder):
    """Guesses what followed the last tokens where they stood before; free of model calls.

    Attributes:
        guesses: the most tokens to copy.
        ngram: the most last tokens to look for; the longest match wins, then the latest.
        read: look in the source or prompt too.
    """

    family = "lookup"
    guesses: int = 5
    ngram: int = 3
    read: bool = True

    @property
    def drafter(self):
        """The history."""
        return Lookup(guesses=self.guesses, ngram=self.ngram, read=self.read)
