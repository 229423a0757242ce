"""Every registered decoder keeps its contract: random, trained, imported models; many devices."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
import nar.decoders
from nar import (
    DECODERS,
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
    Source,
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
ONE_DEVICE = ("trace", "stream", "eager", "vmap")
EIGHT_DEVICES = ("mesh", "shard_map", "pmap")


def beam_reference(decoder, model, source):
    options = {name: getattr(decoder, name) for name in ("beams", "length_penalty", "stop")}
    found = oracles.beam(model, source, decoder.max_length, **options)
    return [hypotheses[0].tokens for hypotheses in found]


REFERENCES = {"beam": beam_reference}


def check(name, model, **options):
    case = CASES[name]
    if "draft" in case.needs:
        spec = model.spec
        same = {"vocab_size": spec.vocab_size, "eos": spec.eos, "pad": spec.pad}
        draft = random_model(encoder=spec.encoder, seed=7, **same)
        model = Bundle.of(target=model, draft=draft)
    if isinstance(case, CorpusLookup):
        texts = np.random.default_rng(0).integers(5, 13, (20, 9)).tolist()
        model = Bundle.of(target=model, corpus=SuffixArray.of(texts))
    return check_decoder(case, model, reference=REFERENCES.get(name), **options)


@pytest.fixture
def options(warp):
    case = CASES["sample"]
    return {"sample": {"warp": warp(case.temperature, case.top_k, case.top_p)}}


def test_every_registered_decoder_has_a_case():
    assert {name: type(case) for name, case in CASES.items()} == DECODERS


def test_every_public_decoder_is_registered():
    modules = [
        importlib.import_module(f"nar.decoders.{module.name}")
        for module in pkgutil.iter_modules(nar.decoders.__path__)
    ]
    found = {
        x
        for module in modules
        for name, x in inspect.getmembers(module, inspect.isclass)
        if issubclass(x, Decoder) and not inspect.isabstract(x) and not name.startswith("_")
    }
    assert found == set(DECODERS.values())


@pytest.mark.parametrize("name", CASES)
def test_random_models(name, encoder, options):
    model = random_model(encoder=encoder)
    report = check(name, model, modes=ONE_DEVICE, **options.get(name, {}))
    assert report.close == []
    assert report.compared >= 50
    assert len(report.p_values) == (5 if name == "sample" else 0)


@pytest.mark.parametrize("name", CASES)
def test_trained_models(name, encoder, trained, toy, options):
    sources = [toy(0, encoder), toy(1, encoder)]
    model = trained(encoder)
    # Once trained, the model is so certain that its nucleus is one token, for any key (point 7).
    points = (1, 2, 5) if name == "sample" else (1, 2, 5, 7)
    check(name, model, sources=sources, points=points, **options.get(name, {}))


@pytest.mark.parametrize("layout", ["marian", "t5", "llama"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.lossless != "no"])
def test_imported_models(name, layout, imported, options):
    check(name, imported(layout), points=(1,), **options.get(name, {}))


rows = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=8, max_size=8)


@pytest.mark.parametrize("name", LOSSLESS)
@given(seed=st.integers(0, 10_000), rows=rows)
def test_any_model_and_source(name, encoder, seed, rows):
    """Shapes stay as they are, so that nothing is compiled again."""
    sources = [Source.of(rows, width=6)]
    check(name, random_model(encoder=encoder, seed=seed), sources=sources, points=(1,))


def test_eight_devices():
    """In a process of its own: the number of simulated devices is fixed when JAX starts.

    NPROC is the size of XLA's pool of threads; with fewer than devices, collectives can deadlock.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("on 8 devices") == 2 * len(CASES)


def on_all_devices():
    for encoder in (True, False):
        model = random_model(encoder=encoder)
        for name in CASES:
            check(name, model, points=(4,), modes=EIGHT_DEVICES if encoder else EIGHT_DEVICES[:1])
            print(f"{name} keeps point 4 on {jax.device_count()} devices")


if __name__ == "__main__":
    on_all_devices()
