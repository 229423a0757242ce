"""A decoder of every kind, and what it takes to hold it to its contract."""

from typing import Any

import numpy as np

from nar import (
    Beam,
    Bundle,
    CorpusLookup,
    Decoder,
    GaussSeidelJacobi,
    Greedy,
    HybridJacobi,
    Jacobi,
    Lookahead,
    PromptLookup,
    Sample,
    SelfSpeculative,
    SpeculativeDecoding,
    SuffixArray,
)
from nar.testing import check_decoder, oracles, random_model

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
}
"""One decoder of every kind; a new kind needs a line here."""


LOSSLESS = [name for name, case in CASES.items() if case.lossless == "greedy"]


def equipped(decoder: Decoder, model: Any) -> Any:
    """The model, and beside it what the decoder needs: a draft model, or a corpus."""
    spec = model.spec
    if "draft" in decoder.needs:
        same = {"vocab_size": spec.vocab_size, "eos": spec.eos, "pad": spec.pad}
        return Bundle.of(target=model, draft=random_model(encoder=spec.encoder, seed=7, **same))
    if isinstance(decoder, CorpusLookup):
        texts = np.random.default_rng(0).integers(5, spec.vocab_size, (20, 9)).tolist()
        return Bundle.of(target=model, corpus=SuffixArray.of(texts))
    return model


def beam_reference(decoder, model, source):
    """What a plain beam search writes."""
    options = {name: getattr(decoder, name) for name in ("beams", "length_penalty", "stop")}
    found = oracles.beam(model, source, decoder.max_length, **options)
    return [hypotheses[0].tokens for hypotheses in found]


REFERENCES = {"beam": beam_reference}


def check(name, model, **options):
    """Holds the case of that name to the contract, on a model."""
    case, reference = CASES[name], REFERENCES.get(name)
    return check_decoder(case, equipped(case, model), reference=reference, **options)
