"""The picture that explains the field: quality against the ambiguity of the training text.

A source has many translations, and places that are predicted independently mix them (Gu et al.
2018). The grammar says how many bits of such choice its text has, and which outputs are correct
translations. So models of every kind are trained on text of several ambiguities, as it is and as
an autoregressive teacher translates it, and each output is judged by the grammar itself.
"""

import dataclasses
import functools
import io
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.data import GrammarData
from experiments.registry import GRAMMAR, PARALLEL, Experiment, distilled, parallel
from experiments.run import distill, train
from nar.bench.figures import COLOURS, MARKERS, STYLE
from nar.bench.quality import interval
from nar.data.grammar import Grammar, GrammarConfig
from nar.errors import NarError
from nar.files import read_json, replacing, write
from nar.training import OptimizerConfig
from nar.translator import load

OUTPUTS, RESULT, PICTURE = "outputs.json", "ambiguity.json", "ambiguity.png"
CAUSAL = "autoregressive"
MODELS = (CAUSAL, *PARALLEL)
TITLES = {"raw": "Trained on raw text", "distilled": "Trained on a teacher's translations"}

TINY = dataclasses.replace(
    GRAMMAR,
    name="ambiguity",
    about="the grammar's shortest sentences, in few words",
    data=GrammarData(sizes=(10_000, 500, 500), grammar=GrammarConfig(length=1, vocabulary=0.1)),
    model=dataclasses.replace(
        GRAMMAR.model, d_model=64, d_ff=256, positions="sinusoidal", dropout=0.1
    ),
    train=dataclasses.replace(
        GRAMMAR.train,
        steps=2000,
        optimizer=OptimizerConfig(learning_rate=4e-3, schedule="cosine", warmup=200),
        validate_every=1000,
        checkpoint_every=1000,
    ),
    decoders=("greedy",),
    more=(),
    tokens_per_batch=2048,
    width_multiple=4,
    max_length=48,
)
"""Updates of the teacher; each value, with all kinds, takes about an hour of one core."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """What is trained.

    Attributes:
        values: the grammar's ambiguities.
        teacher: the autoregressive experiment on the grammar; others are derived from it.
    """

    values: tuple[float, ...] = (0.0, 0.25, 1.0)
    teacher: Experiment = TINY

    def __post_init__(self):
        different = len(set(self.values)) == len(self.values) > 0
        if not different or not all(0 <= value <= 1 for value in self.values):
            raise NarError(f"values={self.values}: they must be different, and from 0 to 1")
        if not isinstance(self.teacher.data, GrammarData):
            raise NarError(f"teacher.data={self.teacher.data}: only the grammar knows its entropy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A model on text of some ambiguity.

    Attributes:
        model: its kind.
        training: "raw" or "distilled".
        ambiguity: of the text.
        bits: the conditional entropy of the test set's translations; mean.
        valid: the share of outputs that are correct translations.
        interval: the middle 95 % of it, over resampled sentences.
        weights: the model's id.
    """

    model: str
    training: str
    ambiguity: float
    bits: float
    valid: float
    interval: tuple[float, float]
    weights: str


def family(teacher: Experiment) -> dict[str, list[Experiment]]:
    """All models on a teacher's text by kind, each raw and distilled.

    All begin with the teacher's weights, whichever text they learn, and are trained for half as
    long again: to predict in parallel is learnt slowly.
    """
    raw = {kind: parallel(teacher, kind, teacher=teacher) for kind in PARALLEL}
    raw = {CAUSAL: dataclasses.replace(teacher, start=teacher.name), **raw}
    taught = {kind: distilled(teacher, one, teacher=teacher) for kind, one in raw.items()}
    raw[CAUSAL] = dataclasses.replace(raw[CAUSAL], name=f"{teacher.name}_{CAUSAL}")
    longer = dataclasses.replace(teacher.train, steps=teacher.train.steps * 3 // 2)
    return {
        kind: [dataclasses.replace(one, train=longer) for one in (raw[kind], taught[kind])]
        for kind in raw
    }


def run(config: Ambiguity, directory: pathlib.Path) -> list[Point]:
    """Trains, judges and draws; what is finished is not done again.

    Args:
        config: what to train.
        directory: of all runs, the result and its picture.

    Raises:
        NarError: a run's directory holds one of other settings.
    """
    points, data = [], config.teacher.data
    assert isinstance(data, GrammarData)
    for ambiguity in config.values:
        grammar = dataclasses.replace(data.grammar, ambiguity=ambiguity)
        teacher = dataclasses.replace(
            config.teacher,
            name=f"{config.teacher.name}-{ambiguity}",
            data=dataclasses.replace(data, grammar=grammar),
        )
        train(teacher, directory / teacher.name, None)
        distill(teacher, directory / teacher.name, None)
        test = Grammar("test", data.sizes[-1], grammar)
        for kind, pair in family(teacher).items():
            for experiment in pair:
                train(experiment, directory / experiment.name, None)
                points.append(judge(experiment, kind, test, directory / experiment.name))
    found = [dataclasses.asdict(point) for point in points]
    write(directory / RESULT, json.dumps(found, indent=1) + "\n")
    with replacing(directory / PICTURE) as file:
        file.write(picture(points))
    return points


def judge(experiment: Experiment, kind: str, test: Grammar, run_dir: pathlib.Path) -> Point:
    """What the grammar says of a model's translations of the test set."""
    outputs, weights = outputs_of(experiment, run_dir, [source for source, _ in test])
    right = accepted(
        dataclasses.replace(test, config=dataclasses.replace(test.config, ambiguity=1))
    )
    correct = np.array([text in texts for text, texts in zip(outputs, right, strict=True)])
    drawn = np.random.default_rng(0).choice(len(correct), (1000, len(correct)))
    return Point(
        model=kind,
        training=experiment.training,
        ambiguity=test.config.ambiguity,
        bits=float(np.mean([test.entropy(i) for i in range(len(test))])),
        valid=float(correct.mean()),
        interval=interval(correct[drawn].mean(1)),
        weights=weights,
    )


def outputs_of(
    experiment: Experiment, run_dir: pathlib.Path, sources: Sequence[str]
) -> tuple[list[str], str]:
    """What a model writes, by its experiment's first decoder, and the model's id."""
    translator, path = load(run_dir / "model"), run_dir / OUTPUTS
    decoder = translator.make_decoder(experiment.decoders[0], experiment.max_length)
    made = {"weights": translator.weights, "decoder": repr(decoder)}
    known = read_json(path) if path.exists() else {}
    if {name: known.get(name) for name in made} != made:
        known = {**made, "outputs": translator.translate(sources, decoder)}
        write(path, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return known["outputs"], translator.weights


@functools.cache
def accepted(test: Grammar) -> list[frozenset[str]]:
    """All translations of every sentence that have a chance."""
    return [frozenset(german for german, _ in test.alternatives(i)) for i in range(len(test))]


def picture(points: Sequence[Point]) -> bytes:
    """Quality against bits of choice, raw and distilled side by side, as PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure((9.5, 4.2), layout="constrained", dpi=150)
        for axis, training in zip(figure.subplots(1, 2, sharey=True), TITLES, strict=True):
            for kind, colour, marker in zip(MODELS, COLOURS, MARKERS, strict=False):
                line = [p for p in points if (p.model, p.training) == (kind, training)]
                line.sort(key=lambda point: point.bits)
                valid = np.array([point.valid for point in line])
                around = np.abs(np.array([point.interval for point in line]).T - valid)
                axis.errorbar(
                    [point.bits for point in line], 100 * valid, yerr=100 * around, label=kind,
                    color=colour, marker=marker, markersize=6, linewidth=1.5, elinewidth=0.8,
                )  # fmt: skip
            axis.set_title(TITLES[training])
            axis.set_xlabel("bits of choice in a sentence's translation, H(German | English)")
        figure.axes[0].set_ylabel("correct translations, %")
        figure.axes[0].set_ylim(0, 102)
        figure.axes[1].legend(loc="lower left")
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": "nar"})
    return file.getvalue()
