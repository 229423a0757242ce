"""An early exit as draft: the same as a draft model of the same first layers."""

import jax
import numpy as np
import pytest

import nar
from nar import Bundle, IncompatibleModel, NarError, SelfSpeculative, Source, SpeculativeDecoding
from nar.testing import random_model

SOURCE = Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10]])


@pytest.mark.rest
@pytest.mark.parametrize("options", [{"branches": "2-1"}, {"nodes": 4}], ids=str)
def test_the_early_exit_is_a_draft_model(options, encoder):
    model = random_model(encoder=encoder, seed=1, decoder_layers=3)
    plain = nar.decode(nar.Greedy(max_length=12), model, SOURCE)
    for layers in (1, 2):
        own = SelfSpeculative(max_length=12, guesses=3, layers=layers, **options)
        other = SpeculativeDecoding(max_length=12, guesses=3, **options)
        bundle = Bundle.of(target=model, draft=model.exit(layers))
        found, right = nar.decode(own, model, SOURCE), nar.decode(other, bundle, SOURCE)
        np.testing.assert_array_equal(found.tokens, plain.tokens)
        assert set(found.stats.calls) == {"target", "draft"}
        jax.tree.map(np.testing.assert_array_equal, found, right)


@pytest.mark.rest
def test_samples_keep_their_distribution(warp):
    model = random_model(seed=8, vocab_size=8)
    decoder = SelfSpeculative(max_length=4, guesses=2, branches="2-2", temperature=0.8)
    nar.testing.check_decoder(decoder, model, points=(1,), warp=warp(0.8))


def test_what_has_no_such_exit():
    model = random_model()
    with pytest.raises(IncompatibleModel, match=r"early exit at decoder layer 2 \(1 at most\)"):
        nar.decode(SelfSpeculative(max_length=8, layers=2), model, SOURCE)
    shallow = random_model(decoder_layers=1)
    with pytest.raises(IncompatibleModel, match=r"at decoder layer 1 \(the model has none\)"):
        nar.decode(SelfSpeculative(max_length=8), shallow, SOURCE)
    with pytest.raises(NarError, match="61 .*and 4 guesses ahead: the model has 64 positions"):
        nar.decode(SelfSpeculative(max_length=61), model, SOURCE)
    with pytest.raises(NarError, match="layers=0"):
        SelfSpeculative(layers=0)
    assert nar.make("self-speculative:layers=2") == SelfSpeculative(layers=2)


def test_an_exit_is_made_of_the_same_arrays(encoder):
    """Its verbs are those of a shallow model that was given the same parameters one by one."""
    model = random_model(encoder=encoder, decoder_layers=3)
    early = model.exit(2)
    parameters = dict(jax.tree.leaves_with_path(model))
    assert len(jax.tree.leaves(early)) < len(parameters)
    for path, x in jax.tree.leaves_with_path(early):
        assert x is parameters[path]
    shallow = jax.tree.map_with_path(
        lambda path, _: parameters[path], random_model(encoder=encoder, decoder_layers=2)
    )
    tokens = np.array([[5, 6, 7]] * 4)
    right, found = (nar.testing.oracles.teacher_forced(m, SOURCE, tokens) for m in (shallow, early))
    np.testing.assert_array_equal(right, found)
    assert early.spec == shallow.spec
    assert len(model.decoder.layers) == 3
