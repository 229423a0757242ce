"""Interpolated Kneser-Ney smoothing with three discounts (Chen & Goodman 1999, section 3).

A lower order is there for what the higher one has not seen, so its counts are not of occurrences
but of contexts: in how many a token was seen. From each count c a discount D(c) is taken, and what
is taken in a context is spread by the order below:

    P(w | h) = (c(hw) - D(c(hw))) / sum_v c(hv)  +  sum_v D(c(hv)) / sum_v c(hv) * P(w | h')

where h' is h without its first token. Below order 1 all tokens are alike.
"""

from collections.abc import Sequence

import numpy as np

from nar.errors import NarError, at_least
from nar.ngram.model import FLOOR, Grams, NGram

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none, as with the few and frequent tokens of order 1."""


def kneser_ney(
    texts: Sequence[Sequence[int]], *, order: int, vocab_size: int, bos: int, eos: int
) -> NGram:
    """Trains a model; probabilities sum to 1 over all tokens but `bos`.

    Args:
        texts: token ids without `bos`, each with `eos` at its end.
        order: tokens of the longest n-grams.
        vocab_size: tokens.
        bos: stands before every text, once, and is never predicted.
        eos: ends every text.

    Raises:
        NarError: there is no text, or one holds what is no token or does not end with `eos`.
    """
    at_least("order", order, 1)
    if not texts:
        raise NarError("no texts: an n-gram model needs at least one")
    for number, text in enumerate(texts):
        if len(text) == 0 or text[-1] != eos:
            raise NarError(f"text {number} does not end with token {eos} (EOS)")
    tokens = np.concatenate([np.array([bos, *text], np.int64) for text in texts])
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        odd = tokens[(tokens < 0) | (tokens >= vocab_size)][0]
        raise NarError(f"the texts hold token {odd}: tokens are 0..{vocab_size - 1}")
    if (tokens == bos).sum() > len(texts):
        raise NarError(f"the texts hold token {bos} (BOS), which stands only before them")
    place = np.concatenate([np.arange(len(text) + 1) for text in texts])  # in each text

    # The n-grams that end at each place, by number; those of a higher order from those below.
    at = [tokens]
    grams = [np.arange(vocab_size)]
    counts = [np.bincount(tokens, minlength=vocab_size)]
    shorter = []  # the n-gram without its first token
    for k in range(1, order):
        ends = np.flatnonzero(place >= k)
        key = at[-1][ends - 1] * vocab_size + tokens[ends]
        key, occurs, number, count = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        shorter.append(at[-1][ends[occurs]])
        at.append(np.full(len(tokens), -1))
        at[-1][ends] = number
        grams.append(key)
        counts.append(count)
    for k, suffix in enumerate(shorter):
        contexts = np.bincount(suffix, minlength=len(counts[k]))
        # Nothing stands before BOS: what begins with it keeps its count of occurrences.
        counts[k] = np.where(contexts > 0, contexts, counts[k])
    counts[0][bos] = 0

    below = np.full(1, 1 / (vocab_size - 1))
    context, shorter = [key // vocab_size for key in grams], [np.zeros(vocab_size, int), *shorter]
    orders: list[Grams] = []
    for k, count in enumerate(counts):
        discount = np.array([0, *discounts(count)])[np.minimum(count, 3)]
        total = np.bincount(context[k], count, minlength=len(below))
        spread = np.bincount(context[k], discount, minlength=len(below))
        weight = np.divide(spread, total, out=np.ones(len(below)), where=total > 0)
        probability = (count - discount) / total[context[k]]
        probability += weight[context[k]] * below[shorter[k]]
        if k == 0:
            probability[bos] = 0
        else:
            orders[-1] = orders[-1]._replace(backoff=np.log(weight))
        with np.errstate(divide="ignore"):
            logprob = np.maximum(np.log(probability), FLOOR)
        orders.append(Grams(context[k], grams[k] % vocab_size, logprob, np.zeros(len(count))))
        below = probability
    return NGram.of(orders, bos=bos, eos=eos)


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 1, of 2, and of 3 or more.

    With n_c the number of n-grams counted c times: D(c) = c - (c + 1) Y n_(c+1) / n_c, where
    Y = n_1 / (n_1 + 2 n_2).

    Args:
        counts: of all n-grams of an order.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if not n.all():
        return np.array(FALLBACK)
    c = np.arange(1, 4)
    found = c - (c + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:3]
    return found if found.min() > 0 else np.array(FALLBACK)
