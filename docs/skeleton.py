"""A decoder to copy: draft from the bigrams that this very output has already used.

Idea: texts repeat themselves. After a token, propose what followed it the last time it was written,
then what followed that, and so on. (A toy of its own; prompt lookup is the grown-up version.)
"""

import dataclasses

import jax.numpy as jnp

import nar
from nar.core import role
from nar.decoders import DraftVerify
from nar.drafters import Draft, Drafter
from nar.ops import at_rows


# 1. The drafter: what it remembers, what it proposes, what it learns from a verdict.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bigrams(Drafter):
    """Remembers `follower [batch, vocab]`: what came after each token, -1 for nothing yet.

    Attributes:
        guesses: tokens to propose a call.
    """

    guesses: int = 3

    @property
    def depth(self):
        """The longest candidate."""
        return self.guesses

    def init(self, model, source, max_length, key):
        """Nothing is known. Shapes never change from here on."""
        return jnp.full((source.tokens.shape[0], role(model).spec.vocab_size), -1)

    def propose(self, model, follower, pending, key):
        """Follows the bigrams; -1 is "no proposal" and is never accepted."""
        token, guesses = pending, []
        for _ in range(self.guesses):
            token = jnp.where(token < 0, -1, at_rows(follower, token))
            guesses.append(token)
        return Draft.chain(pending, jnp.stack(guesses, axis=1)), follower

    def observe(self, model, follower, outcome):
        """Learns from what was really written: `tokens[:, :count]`; count is 0 on finished rows."""
        before = jnp.concatenate([outcome.draft.tokens[:, :1], outcome.tokens[:, :-1]], axis=1)
        written = jnp.arange(before.shape[1]) < outcome.count[:, None]
        rows = jnp.arange(before.shape[0])[:, None]
        place = jnp.where(written, before, follower.shape[1])  # out of bounds: dropped
        return follower.at[rows, place].set(outcome.tokens, mode="drop")


# 2. The decoder: its fields are its hyper-parameters, validated when it is made.
@dataclasses.dataclass(frozen=True, kw_only=True)
class BigramDecoder(DraftVerify):
    """Greedy's output, in fewer calls where the output repeats its own bigrams.

    Attributes:
        guesses: tokens to propose a call.
    """

    family = "lookup"
    guesses: int = 3

    def __post_init__(self):
        super().__post_init__()
        nar.errors.at_least("guesses", self.guesses, 1)

    @property
    def drafter(self):
        """Who proposes."""
        return Bigrams(guesses=self.guesses)


# 3. Its name, for the command line, the benchmark and the contract.
if __name__ == "__main__":
    from nar.testing import check_decoder, random_model

    nar.register("bigrams", BigramDecoder)
    for encoder in (True, False):
        print(check_decoder(BigramDecoder(max_length=16), random_model(encoder=encoder)))
