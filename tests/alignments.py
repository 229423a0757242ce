"""CTC by enumeration: every alignment of a few places, written out, in float64."""

import functools
import itertools

import numpy as np

from nar.testing.oracles import log_softmax


def collapsed(symbols, blank):
    """What an alignment stands for."""
    return [int(symbol) for symbol, _ in itertools.groupby(symbols) if symbol != blank]


@functools.cache
def _alignments(labels, places, blank):
    every = itertools.product(sorted({blank, *labels}), repeat=places)
    found = [a for a in every if collapsed(a, blank) == list(labels)]
    return np.array(found, int).reshape(len(found), places)


def alignments(labels, places, blank):
    """All alignments of the labels, `[number, places]`."""
    return _alignments(tuple(labels), int(places), blank)


def scores(logits, paths):
    """The log-probability of each alignment."""
    return log_softmax(np.asarray(logits, np.float64))[np.arange(paths.shape[1]), paths].sum(1)


def loss_and_gradient(logits, labels, blank):
    """-log of the sum of all alignments, inf where there is none, and its slope by the logits."""
    paths = alignments(labels, len(logits), blank)
    if not len(paths):
        return np.inf, np.zeros_like(logits, np.float64)
    score = scores(logits, paths)
    total = score.max() + np.log(np.exp(score - score.max()).sum())
    one_hot = np.eye(logits.shape[1])[paths]
    posterior = (np.exp(score - total)[:, None, None] * one_hot).sum(0)
    return -total, np.exp(log_softmax(np.asarray(logits, np.float64))) - posterior
