"""The contracts catch what they are there to catch: every point, broken on purpose."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nar
from nar import Greedy, NarError, Transformer
from nar.decoders.rules import Exact, Rule, Sampling
from nar.model import Context
from nar.testing import ContractError, check_decoder, check_model, oracles, random_model
from nar.testing import model as model_contract
from nar.testing.case import random_sources


@pytest.fixture(scope="module")
def model():
    return random_model()


# ------------------------------------------------------------------------------- broken decoders
class Judge(Rule):
    """Greedy's choice of other logits."""

    lossless = "greedy"

    def change(self, logits):
        return logits

    def __call__(self, logits, draft, key):
        return Exact()(self.change(logits), draft, key)


class NeverFive(Judge):
    def change(self, logits):
        return logits.at[..., 5].set(-jnp.inf)


class Mixed(Judge):
    def change(self, logits):
        return logits + 3 * logits.mean(0)


class OneNoise(Sampling):
    def __call__(self, logits, draft, key):
        return super().__call__(logits, draft, jnp.broadcast_to(key[0], key.shape))


class Flat(Sampling):
    def warp(self, logits):
        return super().warp(logits / 1.3)


class Deaf(Sampling):
    def __call__(self, logits, draft, key):
        return super().__call__(logits, draft, jax.random.split(jax.random.key(0), len(key)))


class LastOfAlmostEqual(Judge):
    """No mistake: among logits that are almost equal another one wins."""

    def change(self, logits):
        return logits + 1e-4 * jnp.arange(logits.shape[-1])


def judged(rule):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Judged(Greedy):
        @property
        def rule(self):
            return rule()

    return Judged


class Growing(Greedy):
    """Its lengths change their dtype."""

    def step(self, model, state):
        state = super().step(model, state)
        return state.replace(length=state.length.astype(jnp.int16))


class Endless(Greedy):
    """Writes a token after EOS."""

    def finish(self, model, state):
        rows = jnp.arange(state.length.shape[0])
        return nar.Output(
            state.tokens.at[rows, state.length].set(7), state.length, None, state.stats
        )


class Uncut(Greedy):
    """Forgets the limit of a row."""

    def init(self, model, source, *, key):
        return super().init(model, source.replace(limit=None), key=key)


class Counts(nar.Jacobi):
    """Does not stop counting when all rows are done."""

    def step(self, model, state):
        after, before = super().step(model, state), state.stats.calls["target"]
        return after.replace(stats=after.stats.replace(calls={"target": before + 1}))


class Boasts(Greedy):
    """Says that it accepted more than it did."""

    def step(self, model, state):
        state = super().step(model, state)
        return state.replace(stats=state.stats.replace(accepted=state.stats.accepted[::-1]))


class Hides(Greedy):
    """Calls the model twice and says once."""

    def step(self, model, state):
        again, _ = model.extend(state.carry.pending[:, None], state.carry.context)
        state = super().step(model, state)
        return state.replace(length=state.length + (0 * again[:, 0, 0]).astype(jnp.int32))


class Wavers(nar.Beam):
    """Shows what may be overtaken."""

    streams = True


CALLS = itertools.count()


class Moody(Greedy):
    """Remembers, on the host, how often it was run."""

    def finish(self, model, state):
        mood = jax.pure_callback(
            lambda: np.int32(next(CALLS) % 7), jax.ShapeDtypeStruct((), jnp.int32)
        )
        output = super().finish(model, state)
        return output.replace(tokens=output.tokens.at[:, 0].add(mood))


@pytest.mark.parametrize(
    ("decoder", "point", "message"),
    [
        (judged(NeverFive), 1, r"row \d: \[.*\]; greedy, by hand: \[.*\]"),
        (judged(OneNoise), 1, "key 0: p-value .* drawn .* times, expected"),
        (judged(Flat), 1, "p-value"),
        (judged(Mixed), 2, r"row \d.*(alone, three places wider|among other rows)"),
        (Growing, 3, "traced 2 times|into int16"),
        (Counts, 4, r"stats.calls\['target'\] is \d+ by decode, 12 by trace"),
        (Endless, 5, r"row 0, source of \d tokens, limit 12, EOS at 0: length 1, tokens \[3, 7, 0"),
        (Uncut, 5, "limit 1, .*right are 1"),
        (Boasts, 6, "accepted="),
        (Wavers, 6, "a token that was written changes"),
        (Hides, 6, r"calls\['target'\] is 12; 24 were made"),
        (Moody, 7, "the same keys gave another result"),
        (judged(Deaf), 7, "nine keys gave one sample"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_a_broken_point_is_named(decoder, point, message, model):
    with pytest.raises(ContractError, match=f"breaks point {point} of the contract") as caught:
        check_decoder(decoder(max_length=12), model, points=(point,), modes=("trace",))
    assert caught.match(message)
    assert decoder.__qualname__ in str(caught.value)


def test_near_ties_are_counted(model):
    """Tokens 5, 7 and 8 have almost the same logits; greedy takes one of them, this one another."""
    table = model.output.table[...]
    tied = jax.tree.map(lambda x: x, model)
    tied.output.table[...] = table.at[8].set(table[5] * (1 - 1e-5)).at[7].set(table[5] * (1 - 2e-5))
    report = check_decoder(
        judged(LastOfAlmostEqual)(max_length=12), tied, points=(1,), tolerance=1e-3
    )
    assert report.compared == 16
    assert report.close
    assert {how for how, _ in report.close} == {"greedy, by hand"}
    with pytest.raises(ContractError, match="point 1"):
        check_decoder(judged(LastOfAlmostEqual)(max_length=12), tied, points=(1,), tolerance=1e-6)


def test_what_cannot_be_checked(model):
    with pytest.raises(NarError, match="Beam.* is not lossless: pass an independent reference="):
        check_decoder(nar.Beam(max_length=12), model)
    with pytest.raises(NarError, match=r"\d+ prefixes .* at most 20000"):
        oracles.distribution(model, random_sources(model, jax.random.key(0))[0], 0, 5)


def test_a_wrong_reference_breaks(model):
    def empty(decoder, model, source):
        return [[] for _ in source.length]

    with pytest.raises(ContractError, match=r"row 0: \[.*\]; the reference gives \[\]"):
        check_decoder(nar.Beam(max_length=12, beams=2), model, reference=empty, points=(1,))


# ---------------------------------------------------------------------------------- broken models
class WrongContext(Context):
    """Commits the first tokens whatever the index says, and cannot go back."""

    def commit(self, fresh, count, index=None):
        return super().commit(fresh, count)

    def rewind(self, length):
        return self

    def select(self, rows):
        return self


class KeepsAll(Context):
    def commit(self, fresh, count, index=None):
        return super().commit(fresh, jnp.full_like(count, fresh.keys[0].shape[2]), index)


class Wrong(Transformer):
    """A right model, but for what `mistake` names."""

    mistake = ""

    @property
    def spec(self):
        eos = 99 if self.mistake == "eos" else 3
        return dataclasses.replace(super().spec, eos=eos, bidirectional=True)

    def begin(self, source, slots, *, dropout=None):
        if self.mistake == "padding":
            source = source.replace(length=jnp.full_like(source.length, source.tokens.shape[1]))
        slots = max(slots - 1, 0) if self.mistake == "slots" else slots
        context, pending = super().begin(source, slots, dropout=dropout)
        kinds = {"index": WrongContext, "count": KeepsAll}
        kind = kinds.get(self.mistake, Context)
        return kind(context.keys, context.values, context.length, context.memory), pending

    def extend(self, tokens, context, positions=None, mask=None, *, dropout=None):
        if self.mistake == "mask":
            mask = None
        if self.mistake == "positions":
            positions = None
        if self.mistake == "peeks" and mask is None:
            mask = jnp.ones((tokens.shape[1],) * 2, bool)
        hidden, fresh = super().extend(tokens, context, positions, mask)
        if self.mistake == "neighbours":
            hidden = hidden + hidden.mean(0)
        if self.mistake == "nan":
            hidden = jnp.where((tokens < 0)[..., None], jnp.nan, hidden)
        return hidden, fresh

    def fill(self, canvas, context, valid, *, dropout=None):
        valid = jnp.ones_like(valid) if self.mistake == "invalid" else valid
        return self.extend(canvas, context, mask=valid[:, None, :])[0]

    def logits(self, hidden):
        logits = super().logits(hidden)
        return logits[..., :-1] if self.mistake == "vocabulary" else logits


@pytest.mark.parametrize(
    ("mistake", "check", "message"),
    [
        ("eos", "spec", "eos=99 of 13 tokens"),
        ("vocabulary", "shapes", r"logits are float32\[8, 6, 12\]; \(8, 6, 13\) is right"),
        ("peeks", "causal", "is seen by earlier ones: logits"),
        ("slots", "in_parts", ""),
        ("count", "ragged", "tokens after counts"),
        ("index", "by_index", r"tokens after index \[0, 3, 5\]"),
        ("index", "rewound", "tokens after back to"),
        ("index", "repeated", "tokens after select"),
        ("mask", "branching", "node [1-6] after nodes"),
        ("positions", "branching", "node [1-6] after nodes"),
        ("nan", "absent", "not finite"),
        ("neighbours", "alone", "rows? .*: logits"),
        ("padding", "alone", "padding: logits"),
        ("invalid", "fill", "is seen, and it is not valid"),
    ],
)
def test_a_broken_verb_is_named(mistake, check, message):
    kind = type("Wrong", (Wrong,), {"mistake": mistake})
    model = kind(random_model(decoder_layers=1).config, key=jax.random.key(0))
    probe = model_contract.Probe(model, random_sources(model, jax.random.key(0))[0], 1e-4, check)
    with pytest.raises(
        ContractError, match=rf"Wrong.* breaks the contract of models \({check}\)"
    ) as caught:
        getattr(model_contract, check)(probe)
    assert caught.match(message)


CANVAS = {"causal": False, "bidirectional": True}
UPSAMPLED = {**CANVAS, "upsample": 2, "blank": 5, "length_classes": 9}


class WrongCanvas(Transformer):
    """A right model of upsampled canvases, but for what `mistake` names."""

    mistake = ""

    @property
    def spec(self):
        blank = 4 if self.mistake == "blank" else 5
        return dataclasses.replace(super().spec, blank=blank)

    def begin(self, source, slots, *, dropout=None):
        if self.mistake == "padding":
            source = source.replace(length=jnp.full_like(source.length, source.tokens.shape[1]))
        if self.mistake == "deaf":
            source = source.replace(tokens=jnp.full_like(source.tokens, 7))
        return super().begin(source, slots, dropout=dropout)

    def fill(self, canvas, context, valid, *, dropout=None):
        if self.mistake == "causal":
            return self.extend(canvas, context)[0]
        hidden = super().fill(canvas, context, valid)
        return hidden + (hidden.mean(0) if self.mistake == "neighbours" else 0)

    def lengths(self, context):
        scores = super().lengths(context)
        if self.mistake == "average":
            scores = jnp.log(jnp.exp(scores).mean(0, keepdims=True) + 0 * scores)
        return {"few": scores[:, :-1], "scores": scores - 1}.get(self.mistake, scores)


@pytest.mark.parametrize(
    ("mistake", "check", "message"),
    [
        ("blank", "spec", "mask and blank are both 4"),
        ("causal", "fill", "place 1 is not seen by all valid ones"),
        ("padding", "fill_unknown", "other tokens in the source's padding: logits"),
        ("neighbours", "fill_unknown", "padding: logits|alone: logits"),
        ("deaf", "fill_unknown", "the source is not seen"),
        ("few", "lengths", r"lengths are \(8, 64\); \(8, 65\) is right"),
        ("scores", "lengths", "the sum over all lengths: probability.* is 0.367879; 1 is right"),
        ("padding", "lengths", "padding: probability"),
        ("average", "lengths", "row 0 alone: probability"),
    ],
)
def test_a_broken_canvas_is_named(mistake, check, message):
    kind = type("WrongCanvas", (WrongCanvas,), {"mistake": mistake})
    model = kind(random_model(decoder_layers=1, **UPSAMPLED).config, key=jax.random.key(0))
    probe = model_contract.Probe(model, random_sources(model, jax.random.key(0))[0], 1e-4, check)
    with pytest.raises(
        ContractError, match=rf"WrongCanvas.* breaks the contract of models \({check}\)"
    ) as caught:
        getattr(model_contract, check)(probe)
    assert caught.match(message)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        pytest.param({**CANVAS, "decoder_layers": 1}, marks=pytest.mark.rest),
        pytest.param(UPSAMPLED, marks=pytest.mark.rest),
        {"encoder": False, "positions": "rotary", "kv_heads": 1, "windows": (2, None), "eos": -1},
        pytest.param(
            {"positions": "relative", "norm_position": "post", "decoder_layers": 1},
            marks=pytest.mark.rest,
        ),
    ],
    ids=str,
)
def test_right_models_pass(shape):
    check_model(random_model(**shape))


def test_fill_of_a_right_model():
    model = random_model()
    model_contract.fill(
        model_contract.Probe(model, random_sources(model, jax.random.key(0))[0], 1e-4)
    )


# -------------------------------------------------------------------------------- the random model
def test_random_models_are_worth_decoding(encoder):
    """Over seeds: differing lengths, EOS within reach, no endless repetition, differing rows."""
    lengths, varied, rows = [], [], []
    for seed in range(6):
        model = random_model(encoder=encoder, seed=seed)
        for source in random_sources(model, jax.random.key(seed)):
            tokens, length, _ = oracles.greedy(model, source, 12)
            lengths += length.tolist()
            varied += [len(set(t[:n])) / n for t, n in zip(tokens.tolist(), length, strict=True)]
            rows.append(len(set(map(tuple, tokens.tolist()))))
    assert len(set(lengths)) >= 9
    assert 0.2 < np.mean(np.array(lengths) < 12) < 0.9
    assert np.mean(varied) > 0.4
    assert np.mean(rows) > 5
