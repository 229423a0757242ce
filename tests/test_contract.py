"""Every registered decoder keeps its contract, on random models and on trained ones."""

import importlib
import inspect
import pkgutil

import jax.numpy as jnp
import numpy as np
import pytest

import nar.decoders
from nar import DECODERS, Bundle, Decoder, Source, decode
from nar.core import TARGET
from nar.testing import check_decoder, random_model
from tests.cases import (
    CASES,
    REFERENCES,
    check,
    each,
    equipped,
    of_a_parallel_loop,
    on,
    random_canvas_model,
)

PROGRAMS, EQUATIONS = 8, 2500
"""The budget of a decoder: the contract on one model takes so many programs of `step`, each of so
many equations, those of its loops and functions included. Most decoders have 600 to 1,000. What
that comes to in seconds is said in docs/writing_a_decoder.md; a decoder that needs more has to find
shapes that it can share, or loops instead of copies.
"""

SHORT = Source.of([[5, 6], [7], [8, 9], [10], [5], [6, 7], [9], [8, 5]]).replace(
    limit=jnp.array([2, 1, 2, 2, 1, 2, 2, 1])
)
"""What is decoded without jit, where every operation by itself takes its time."""


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


@on(quick=lambda name, encoder: encoder or name == "lookahead")
def test_random_models(name, encoder, options):
    model = random_model(encoder=encoder)
    report = check(name, model, modes=("trace", "stream"), **options.get(name, {}))
    assert report.close == []
    assert report.compared >= 40
    assert len(report.p_values) == (5 if name == "sample" else 0)
    assert report.traces <= PROGRAMS
    assert report.equations <= EQUATIONS


@on(quick=of_a_parallel_loop)
def test_without_jit_and_under_vmap(name, encoder, options):
    model = random_model(encoder=encoder)
    for sources, mode in (([SHORT], "eager"), (None, "vmap")):
        report = check(
            name, model, sources=sources, points=(4,), modes=(mode,), **options.get(name, {})
        )
        assert report.close == []
        assert report.compared == 8


@pytest.mark.parametrize(
    "name", each(["greedy", "beam", "sample", "prompt-lookup", "self-speculative"])
)
def test_models_of_several_ends(name, options):
    """Each end is a token of its own: the likeliest decides, and their probabilities add up."""
    ends = (10, 11)
    model = random_model(encoder=False, also_eos=ends)
    check(name, model, points=(1, 5), modes=(), **options.get(name, {}))
    plain = decode(CASES[name], equipped(CASES[name], random_model(encoder=False)), SHORT)
    assert np.isin(plain.tokens, ends).any()


@pytest.mark.rest
def test_a_causal_model_of_several_ends_ranks():
    """That a candidate ends is as likely as all ends together."""
    decoder = CASES["noisy-parallel"]
    reranker = random_model(seed=7, also_eos=(8, 10, 11))
    bundle = Bundle.of(target=random_canvas_model(decoder.base), reranker=reranker)
    report = check_decoder(
        decoder, bundle, reference=REFERENCES["noisy-parallel"], points=(1,), modes=()
    )
    assert report.close == []


@pytest.mark.rest
@on(quick=lambda name, encoder: True)
def test_trained_models(name, encoder, trained, trained_canvas, toy, options):
    sources = [toy(0, encoder), toy(1, encoder)]
    need = CASES[name].needs[TARGET]
    model = trained_canvas(need.upsample) if need.bidirectional else trained(encoder)
    # Once trained, the model is so certain that its nucleus is one token, for any key (point 7).
    points = (1, 2, 5) if name == "sample" else (1, 2, 5, 7)
    check(name, model, sources=sources, points=points, **options.get(name, {}))
