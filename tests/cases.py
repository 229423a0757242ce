"""A decoder of every kind, and what it takes to hold it to its contract."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest

from nar import (
    CTC,
    Beam,
    Bundle,
    CorpusLookup,
    CTCBeam,
    Decoder,
    GaussSeidelJacobi,
    Greedy,
    HybridJacobi,
    Jacobi,
    Lookahead,
    MaskPredict,
    NoisyParallel,
    ParallelDraft,
    PromptLookup,
    QuotaUnmasking,
    Sample,
    SelfSpeculative,
    Source,
    SpeculativeDecoding,
    SuffixArray,
    ThresholdUnmasking,
)
from nar.core import TARGET
from nar.testing import check_decoder, oracles, random_model
from tests import canvases, prefix_beam
from tests.language import random_language

CASES = {
    "greedy": Greedy(max_length=12, scores=True),
    "beam": Beam(max_length=12, beams=3),
    "sample": Sample(max_length=12, temperature=0.8, top_k=7, top_p=0.9),
    "jacobi": Jacobi(max_length=12),
    "gauss-seidel-jacobi": GaussSeidelJacobi(max_length=12, block=5, guess="previous"),
    "hybrid-jacobi": HybridJacobi(max_length=12, block=3, parallel=7, guess="source"),
    "lookahead": Lookahead(max_length=12, window=3, ngram=3, candidates=2, pool=16),
    "prompt-lookup": PromptLookup(max_length=12, guesses=3, ngram=2),
    "corpus-lookup": CorpusLookup(max_length=12, guesses=3, ngram=2, candidates=2),
    "speculative": SpeculativeDecoding(max_length=12, guesses=3, branches="2-2-1"),
    "self-speculative": SelfSpeculative(max_length=12, guesses=3, nodes=4),
    "ctc": CTC(max_length=12),
    "ctc-beam": CTCBeam(max_length=12, beams=4, top_k=3, alpha=0.3, beta=0.5, nbest=2),
    "mask-predict": MaskPredict(max_length=12, calls=4, lengths=3),
    "threshold-unmasking": ThresholdUnmasking(max_length=12, threshold=0.5, block=5),
    "quota-unmasking": QuotaUnmasking(max_length=12, calls=5, lengths=2),
    "noisy-parallel": NoisyParallel(max_length=12, base=MaskPredict(calls=1, lengths=3)),
    "parallel-draft": ParallelDraft(max_length=12, guesses=4, suffix=2, reach=2),
}
"""One decoder of every kind; a new kind needs a line here."""


LOSSLESS = [name for name, case in CASES.items() if case.lossless == "greedy"]
CANVASES = [name for name, case in CASES.items() if case.needs[TARGET].bidirectional]
"""Decoders of models that predict a canvas, all of which have an encoder."""

ON = [
    (name, encoder)
    for name in CASES
    for encoder in (True, False)
    if encoder or name not in CANVASES
]
"""Every decoder, with and without an encoder where there are models of both kinds."""

LOOPS = ("lookahead", "mask-predict", "beam")
"""A decoder of each loop: draft and verify, canvases, and beam search.

What the loop answers for, and not the decoder, is checked for all decoders by `make test-rest` and
for these by `make test` already.
"""


def each(names: Collection[str] = tuple(CASES)) -> list[Any]:
    """Names to run a test on; what is not one of `LOOPS` belongs to `make test-rest`."""
    return [n if n in LOOPS else pytest.param(n, marks=pytest.mark.rest) for n in names]


def on(quick: Callable[[str, bool], bool], among: Collection[str] = tuple(CASES)) -> Any:
    """Runs a test on those of `ON`; what is not quick belongs to `make test-rest`."""
    marks = {True: (), False: pytest.mark.rest}
    both = [pytest.param(*one, marks=marks[quick(*one)]) for one in ON if one[0] in among]
    return pytest.mark.parametrize(("name", "encoder"), both)


def of_a_loop(name: str, encoder: bool) -> bool:
    """Whether it is the one of its loop, on a model with an encoder."""
    return name in LOOPS and encoder


def of_a_parallel_loop(name: str, encoder: bool) -> bool:
    """The same without beam search, where nothing is decoded in parallel."""
    return name != "beam" and of_a_loop(name, encoder)


def equipped(decoder: Decoder, model: Any) -> Any:
    """The model, and beside it what the decoder needs: a draft or language model, or a corpus.

    Where the decoder predicts a canvas and the model does not: one that does, of its vocabulary.
    """
    spec = model.spec
    same = {"vocab_size": spec.vocab_size, "eos": spec.eos, "pad": spec.pad}
    if decoder.needs[TARGET].bidirectional and not spec.bidirectional:
        return equipped(decoder, random_canvas_model(decoder, **same))
    if isinstance(decoder, CTCBeam):
        return Bundle.of(target=model, language=random_language(spec.vocab_size))
    if isinstance(decoder, NoisyParallel):
        return Bundle.of(target=model, reranker=random_model(seed=7, **same))
    if isinstance(decoder, ParallelDraft):
        return Bundle.of(target=model, draft=random_canvas_model(decoder.base, **same))
    if "draft" in decoder.needs:
        return Bundle.of(target=model, draft=random_model(encoder=spec.encoder, seed=7, **same))
    if isinstance(decoder, CorpusLookup):
        texts = np.random.default_rng(0).integers(5, spec.vocab_size, (20, 9)).tolist()
        return Bundle.of(target=model, corpus=SuffixArray.of(texts))
    return model


def random_canvas_model(decoder: Decoder, **config: Any) -> Any:
    """A random model of canvases such as the decoder needs."""
    ctc = {"upsample": 2, "blank": 5}
    kind = ctc if decoder.needs[TARGET].upsample else {"length_classes": 16}
    return random_model(causal=False, bidirectional=True, **kind, **config)


def beam_reference(decoder, model, source):
    """What a plain beam search writes."""
    options = {name: getattr(decoder, name) for name in ("beams", "length_penalty", "stop")}
    found = oracles.beam(model, source, decoder.max_length, **options)
    return [hypotheses[0].tokens for hypotheses in found]


def noisy_reference(decoder, model, source):
    """Of each row's candidates the one that the causal model likes best."""
    found = canvases.candidates(decoder.inner, model.models["target"], source)
    best = []
    for row, candidates in enumerate(found):
        one = Source.of([np.asarray(source.tokens)[row, : int(source.length[row])].tolist()])
        liked = []
        for _, tokens, _ in candidates:
            logits = oracles.teacher_forced(model.models["reranker"], one, np.array([tokens]))
            said = oracles.log_softmax(np.asarray(logits[0], np.float64))
            ends = model.models["reranker"].spec.ends
            said[:, ends[0]] = np.logaddexp.reduce(said[:, list(ends)], axis=1)
            total = said[np.arange(len(tokens)), tokens].sum()
            liked.append(total / len(tokens) ** decoder.length_penalty)
        best.append(candidates[int(np.argmax(liked))][1])
    return best


REFERENCES = {
    **dict.fromkeys(CANVASES, canvases.reference),
    "noisy-parallel": noisy_reference,
    "beam": beam_reference,
    "ctc-beam": prefix_beam.reference,
}


def check(name, model, **options):
    """Holds the case of that name to the contract, on a model."""
    case, reference = CASES[name], REFERENCES.get(name)
    return check_decoder(case, equipped(case, model), reference=reference, **options)
