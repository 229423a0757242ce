"""Decoding of canvases by the book: NumPy and lists, one place after the other."""

import itertools
from fractions import Fraction

import jax
import numpy as np

import nar
from nar.testing import oracles


@jax.jit
def predicted(model, source, canvas, valid):
    """Logits of every place, and each row's start token."""
    context, start = model.begin(source, 0)
    return model.logits(model.fill(canvas, context, valid)), start


@jax.jit
def lengths(model, source):
    """Log-probabilities of lengths."""
    return model.lengths(model.begin(source, 0)[0])


def likeliest_lengths(decoder, model, source):
    """Of each row, (length, log-probability), likeliest first; what is too long is cut."""
    said = np.asarray(lengths(model, source), np.float64)
    for row, most in enumerate(oracles.limits(source, decoder.max_length)):
        if decoder.longer is not None:
            most = min(most, int(source.length[row]) + decoder.longer)
        probability = np.exp(said[row])
        cut = [*probability[:most], probability[most:].sum()]
        order = sorted(range(most + 1), key=lambda n, cut=cut: -cut[n])[: decoder.lengths]
        yield [(n, np.log(cut[n])) for n in order if cut[n] > 0]


def masked_again(decoder, call, n, score, masked):
    """The places to predict once more, by the papers' rules."""

    def worst(places, count):
        return sorted(places, key=lambda i: (score[i], i))[:count]

    if isinstance(decoder, nar.CTC) or not masked:
        return []
    if isinstance(decoder, nar.MaskPredict):
        return worst(range(n), int(n * (1 - Fraction(call, decoder.calls))))
    if isinstance(decoder, nar.QuotaUnmasking):
        kept = len(np.array_split(range(n), decoder.calls)[call - 1])
        return worst(masked, len(masked) - kept)
    size = decoder.block or n
    block = [i for i in masked if i // size == min(masked) // size]
    kept = {max(block, key=lambda i: score[i])}
    kept |= {i for i in block if np.exp(score[i]) > decoder.threshold}
    return [i for i in masked if i not in kept]


def unmask(decoder, model, source, sizes, width):
    """Canvases of these sizes, one a row: tokens, scores, and how many calls each took."""
    spec, batch = model.spec, len(sizes)
    tokens, scores = np.full((batch, width), spec.mask), np.zeros((batch, width))
    valid = np.arange(width) < np.asarray(sizes)[:, None]
    masked, calls = [list(range(n)) for n in sizes], np.zeros(batch, int)
    for call in range(1, decoder.max_steps + 1):
        open_ = [row for row in range(batch) if masked[row] or call == 1]
        if not open_:
            break
        canvas = tokens.copy()
        for row in open_:
            canvas[row, masked[row]] = spec.mask
        logits, start = predicted(model, source, canvas, valid)
        logits = np.array(logits, np.float64)
        blank = [] if isinstance(decoder, nar.CTC) or spec.blank is None else [spec.blank]
        logits[..., [spec.pad, spec.mask, *blank]] = -1e30
        for row in open_:
            logits[row, :, start[row]] = -1e30
            logp = oracles.log_softmax(logits[row])
            for i in masked[row]:
                tokens[row, i], scores[row, i] = logp[i].argmax(), logp[i].max()
            again = masked_again(decoder, call, sizes[row], scores[row], masked[row])
            masked[row], calls[row] = again, call
    return tokens, scores, calls


def written(tokens, spec, limit, ctc):
    """The output of a canvas: EOS at its end, or where the model says so; cut at the limit."""
    if ctc:
        tokens = [token for token, _ in itertools.groupby(tokens) if token != spec.blank]
    tokens = [*tokens, spec.eos]
    return [int(token) for token in tokens[: min(tokens.index(spec.eos) + 1, limit)]]


def candidates(decoder, model, source):
    """Of each row all candidates, best first: (mean log-probability, tokens, calls)."""
    batch, ctc = source.tokens.shape[0], isinstance(decoder, nar.CTC)
    width, limit = decoder.max_length, oracles.limits(source, decoder.max_length)
    if ctc:
        width = model.spec.upsample * source.tokens.shape[1]
        choices = [[(model.spec.upsample * int(n), 0.0)] for n in source.length]
    elif decoder.oracle_length:
        choices = [[(int(n) - 1, 0.0)] for n in limit]
    else:
        choices = list(likeliest_lengths(decoder, model, source))
    found = [[] for _ in range(batch)]
    for rank in range(max(map(len, choices))):
        sizes = [row[rank][0] if rank < len(row) else 0 for row in choices]
        tokens, scores, calls = unmask(decoder, model, source, sizes, width)
        for row, n in enumerate(sizes):
            if rank < len(choices[row]):
                said, weight = choices[row][rank][1], decoder.length_weight
                score = np.average([*scores[row, :n], said], weights=[1] * n + [weight or not n])
                output = written(tokens[row, :n].tolist(), model.spec, limit[row], ctc)
                found[row].append((score, output, int(calls[row])))
    return [sorted(row, key=lambda candidate: -candidate[0]) for row in found]


def reference(decoder, model, source):
    """What each row's best candidate writes."""
    return [row[0][1] for row in candidates(decoder, model, source)]
