"""Sources, what models offer and decoders need, and counting: hand-worked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar import Bundle, Greedy, IncompatibleModel, NarError, Needs, Source, Spec, Stats
from nar.core import role, row_keys
from nar.errors import at_least, check_key, check_room, check_source, nearest

SPEC = Spec(vocab_size=9, eos=3, pad=0, encoder=True, max_source=6, max_target=10)


def test_a_source_is_padded_on_the_right():
    source = Source.of([[5, 6, 7], [8]], pad=1, width=4)
    np.testing.assert_array_equal(source.tokens, [[5, 6, 7, 1], [8, 1, 1, 1]])
    np.testing.assert_array_equal(source.length, [3, 1])
    assert source.limit is None
    assert Source.of([[5, 6, 7], [8]]).tokens.shape == (2, 3)


@pytest.mark.parametrize(
    ("rows", "width", "message"),
    [
        ([], None, "batch of zero"),
        ([[5], []], None, "row 1 is empty"),
        ([[5], [5, 6, 7]], 2, "row 1 has 3 tokens: at most width=2"),
    ],
)
def test_a_source_that_cannot_be_made(rows, width, message):
    with pytest.raises(NarError, match=message):
        Source.of(rows, width=width)


def test_a_source_that_cannot_be_decoded():
    tokens, length = jnp.zeros((2, 3), jnp.int32), jnp.array([3, 1])
    for source, message in [
        (Source(tokens[:0], length[:0]), r"shape \(0, 3\)"),
        (Source(tokens[:, :0], length), r"shape \(2, 0\)"),
        (Source(tokens[0], length), r"shape \(3,\)"),
        (Source(tokens, length[:1]), r"source.length has shape \(1,\): it must be \(2,\)"),
        (Source(tokens, jnp.array([3, 4])), r"source.length\[1\] is 4: it must be in 1..3"),
        (Source(tokens, jnp.array([0, 1])), r"source.length\[0\] is 0"),
        (Source(tokens, length, jnp.array([8, 9])), r"source.limit\[1\] is 9: it must be in 1..8"),
        (Source(tokens, length, jnp.array([-1, 2])), r"source.limit\[0\] is -1"),
    ]:
        with pytest.raises(NarError, match=message):
            check_source(source, max_length=8)


def test_room_for_source_and_output():
    source = Source.of([[5] * 6])
    check_room(source, SPEC, 10)
    with pytest.raises(NarError, match="max_length=11: the model has 10 positions, so at most 10"):
        check_room(source, SPEC, 11)
    with pytest.raises(NarError, match="7 positions: the model reads at most 6"):
        check_room(Source.of([[5] * 7]), SPEC, 1)
    prompt = Spec(vocab_size=9, eos=3, pad=0, encoder=False, max_target=10)
    check_room(source, prompt, 4)
    with pytest.raises(NarError, match="prompt of 6 positions: .* so at most 4 fit"):
        check_room(source, prompt, 5)


def test_unmet_needs_are_named():
    everything = Needs(causal=True, bidirectional=True, draft_heads=4, length_head=True, mask=True)
    assert Needs().unmet(SPEC) == Needs(causal=True).unmet(SPEC) == []
    lacking = " ".join(everything.unmet(SPEC))
    for part in ("fill", "4 draft heads (the model has 0)", "length head", "mask token"):
        assert part in lacking
    assert "extend" not in lacking
    assert Needs(upsample=False).unmet(SPEC) == []
    assert Needs(upsample=True).unmet(SPEC) == ["upsample > 0"]
    assert Needs(upsample=False).unmet(dataclasses.replace(SPEC, upsample=2)) == ["upsample=0"]


def test_roles():
    bundle = Bundle.of(target="big", draft="small")
    assert role(bundle) == "big"
    assert role(bundle, "draft") == "small"
    assert role("only") == "only"
    with pytest.raises(
        IncompatibleModel, match=r"'reranker' model too: --reranker PATH .*there are draft, tar"
    ):
        role(bundle, "reranker")
    with pytest.raises(IncompatibleModel, match="'draft' model too"):
        role("only", "draft")
    with pytest.raises(NarError, match=r"needs the role 'target'; it was given \['draft'\]"):
        Bundle.of(draft="small")


def test_names_nearest_first():
    assert nearest("jacoby", ["beam", "greedy", "jacobi"]).startswith("jacobi")
    assert nearest("x", []) == "none"
    assert nearest("a", [f"a{i}" for i in range(20)]).endswith("...")


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "4", None])
def test_sizes_are_whole_numbers(value):
    with pytest.raises(NarError, match="max_length=.*whole number of at least 1"):
        Greedy(max_length=value)
    at_least("size", 1, 1)


def test_stats_count_live_rows_only():
    stats = Stats.zero(3, most=2, roles=("target", "draft"))
    live, some = jnp.array([True, True, True]), jnp.array([True, False, True])
    stats = stats.count(live, jnp.array([1, 2, 1]), {"target": (1, 5), "draft": (4, 6)})
    stats = stats.count(some, jnp.array([2, 0, 1]), {"target": (1, 5), "draft": (4, 6)})
    stats = stats.count(~live, jnp.array([0, 0, 0]), {"target": (1, 5), "draft": (4, 6)})
    assert {name: int(n) for name, n in stats.calls.items()} == {"target": 2, "draft": 8}
    np.testing.assert_array_equal(stats.live, [2, 1, 2])
    np.testing.assert_array_equal(stats.positions["target"], [10, 5, 10])
    np.testing.assert_array_equal(stats.positions["draft"], [12, 6, 12])
    np.testing.assert_array_equal(stats.accepted, [0, 3, 2])


def test_a_rows_key_is_its_own():
    keys = row_keys(jax.random.key(7), 3)
    right = [jax.random.fold_in(jax.random.key(7), i) for i in range(3)]
    assert all((keys == jnp.stack(right)).tolist())
    assert all((row_keys(keys, 3) == keys).tolist())
    check_key(keys, 3)
    with pytest.raises(NarError, match=r"shape \(3,\): .* each of the 4 rows"):
        check_key(keys, 4)
    with pytest.raises(NarError, match=r"uint32\[2\]: it must come from jax.random.key"):
        check_key(jax.random.PRNGKey(0), 2)
