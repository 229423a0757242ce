"""N-gram models in plain Python: dictionaries, and definitions as they stand in the papers."""

import functools
import pathlib
import tempfile
from collections import Counter

import numpy as np

from nar.ngram import kneser_ney, write_arpa


class ByHand:
    """Interpolated Kneser-Ney; `probability(token, context)` counts everything anew."""

    def __init__(self, texts, order, vocab_size, bos):
        self.order, self.vocab_size, self.bos = order, vocab_size, bos
        self.seen = Counter()
        for text in ([bos, *text] for text in texts):
            for k in range(1, order + 1):
                self.seen.update(tuple(text[i : i + k]) for i in range(len(text) - k + 1))
        self.count = functools.cache(self.count)
        self.discounts = functools.cache(self.discounts)

    def count(self, gram):
        """Occurrences; of shorter n-grams, different tokens before it, as far as there can be."""
        if gram == (self.bos,):
            return 0
        if len(gram) == self.order or gram[0] == self.bos:
            return self.seen[gram]
        return sum(longer[1:] == gram for longer in self.seen)

    def discounts(self, k):
        """Of counts 0, 1, 2, and 3 or more."""
        n = Counter(self.count(gram) for gram in self.seen if len(gram) == k)
        if all(n[c] for c in (1, 2, 3, 4)):
            y = n[1] / (n[1] + 2 * n[2])
            found = [0, *(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))]
            if min(found[1:]) > 0:
                return found
        return [0, 0.5, 1.0, 1.5]

    def probability(self, token, context):
        """P(token | context)."""
        context = tuple(context)[max(len(context) - self.order + 1, 0) :]
        counts = [self.count((*context, other)) for other in range(self.vocab_size)]
        taken = [self.discounts(len(context) + 1)[min(c, 3)] for c in counts]
        if context:
            below = self.probability(token, context[1:])
        else:
            below = 0 if token == self.bos else 1 / (self.vocab_size - 1)
        if not sum(counts):
            return below
        return (counts[token] - taken[token] + sum(taken) * below) / sum(counts)


def as_dictionary(model):
    """What a model's ARPA file says: {tokens: (log-probability, log-weight)}."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "arpa"
        pieces = [str(token) for token in range(model.vocab_size)]
        pieces[model.bos], pieces[model.eos] = "<s>", "</s>"
        write_arpa(path, model, pieces)
        return parsed(path.read_text(), pieces)


def parsed(text, pieces):
    """What an ARPA file says: {tokens: (log-probability, log-weight)}."""
    lines, found, order = [line.split() for line in text.splitlines()], {}, 1
    while [f"\\{order}-grams:"] in lines:
        start = lines.index([f"\\{order}-grams:"]) + 1
        for logprob, *words in lines[start : lines.index([], start)]:
            weight = words[order] if len(words) > order else 0
            tokens = tuple(pieces.index(word) for word in words[:order])
            found[tokens] = float(logprob) * np.log(10), float(weight) * np.log(10)
        order += 1
    return found


def logprob(dictionary, order, context, token):
    """By the definition of backing off."""
    context = tuple(context)[max(len(context) - order + 1, 0) :]
    if (*context, token) in dictionary:
        return dictionary[*context, token][0]
    weight = dictionary.get(context, (0, 0))[1]
    return weight + logprob(dictionary, order, context[1:], token)


def random_texts(seed, count=40, vocab_size=13, longest=6, eos=3):
    """Texts of ordinary tokens, some of them frequent, with EOS."""
    random, tokens = np.random.default_rng(seed), np.arange(6, vocab_size)
    share = 1 / np.arange(1, len(tokens) + 1)
    return [
        [*random.choice(tokens, random.integers(0, longest + 1), p=share / share.sum()), eos]
        for _ in range(count)
    ]


def random_language(vocab_size, *, order=3, seed=0):
    """A model of such texts."""
    texts = random_texts(seed, vocab_size=vocab_size)
    return kneser_ney(texts, order=order, vocab_size=vocab_size, bos=2, eos=3)
