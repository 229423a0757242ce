"""Prefix beam search by the book, on dictionaries: Hannun et al. 2014, algorithm 1."""

import collections

import numpy as np

from nar.core import role
from nar.ngram import LANGUAGE
from nar.testing import oracles
from tests.canvases import predicted
from tests.language import as_dictionary, logprob


def place_logprobs(model, source):
    """Of each row, the log-probabilities of every symbol at each of its places."""
    target, width = role(model), source.tokens.shape[1]
    spec, room = target.spec, target.spec.upsample * np.asarray(source.length)
    canvas = np.full((len(room), spec.upsample * width), spec.mask)
    logits, start = predicted(target, source, canvas, np.arange(canvas.shape[1]) < room[:, None])
    logits = np.array(logits, np.float64)
    logits[..., [spec.pad, spec.mask]] = -np.inf
    for row, places in enumerate(room):
        logits[row, :, start[row]] = -np.inf
        yield oracles.log_softmax(logits[row, :places])


def added(decoder, model):
    """`added(prefix, ended)`: what language model and length add to a prefix's score."""
    language = role(model, LANGUAGE) if decoder.alpha else None
    dictionary = as_dictionary(language) if language else {}

    def score(prefix, ended):
        total = decoder.beta * len(prefix)
        if language:
            text = (language.bos, *prefix, *[language.eos] * ended)
            said = (
                logprob(dictionary, language.order, text[:i], text[i]) for i in range(1, len(text))
            )
            total += decoder.alpha * sum(said)
        return total

    return score


def search(decoder, spec, logprobs, limit, added):
    """The outputs that are left, best first: (score, tokens). Probabilities are no logarithms."""
    beam = {(): np.array([1.0, 0.0, 0.0])}  # alignments that end with a blank, a token, for ever
    for p in np.exp(logprobs):
        tokens = [t for t in range(spec.vocab_size) if t not in (spec.blank, spec.eos) and p[t] > 0]
        likely = sorted(tokens, key=lambda token: -p[token])[: decoder.top_k]
        grown = collections.defaultdict(lambda: np.zeros(3))
        for prefix, (blank, label, ended) in beam.items():
            if len(prefix) == limit:
                grown[prefix][2] += blank + label + ended
                continue
            grown[prefix] += [(blank + label) * p[spec.blank], 0, ended]
            grown[prefix][2] += (blank + label) * p[spec.eos]
            for token in tokens:
                if (*prefix, token) in beam or token in likely:
                    new = prefix[-1:] != (token,)
                    grown[*prefix, token][1] += (blank + new * label) * p[token]
                if prefix[-1:] == (token,):
                    grown[prefix][1] += label * p[token]
        scores = {x: np.log(mass.sum()) + added(x, False) for x, mass in grown.items() if any(mass)}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[: decoder.beams]
        beam = {prefix: grown[prefix] for prefix in best}
    outputs = []
    for prefix, mass in beam.items():
        room = int(len(prefix) < limit)
        outputs.append((np.log(mass.sum()) + added(prefix, room), [*prefix, *[spec.eos] * room]))
    return sorted(outputs, reverse=True)


def candidates(decoder, model, source):
    """Of each row all that is left, best first: (score, tokens)."""
    limits, score = oracles.limits(source, decoder.max_length), added(decoder, model)
    rows = zip(place_logprobs(model, source), limits, strict=True)
    return [search(decoder, role(model).spec, logp, limit, score) for logp, limit in rows]


def reference(decoder, model, source):
    """What each row's best candidate writes."""
    return [row[0][1] for row in candidates(decoder, model, source)]
