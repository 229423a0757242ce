"""What an experiment is, and the experiments there are; derive yours with `dataclasses.replace`."""

import dataclasses
import itertools
from typing import Any

from experiments.data import Data, DistilledData, FolderData, GrammarData, Training
from nar.bench.metrics import METRICS, MetricName, make_metric
from nar.bench.protocol import Protocol
from nar.data.tokenizer import BLANK, BOS, EOS, MASK, PAD, SEP, Pieces
from nar.decoders import make
from nar.errors import NarError, at_least, nearest
from nar.model import TransformerConfig
from nar.objectives import CTC, CrossEntropy, Masked
from nar.training import OptimizerConfig, TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Text, a model, its training, and the decoders to compare.

    Attributes:
        name: what it is called on the command line, and in reports.
        about: one line.
        data: where the text comes from.
        model: the transformer; its `vocab_size` is the most pieces that the tokenizer may learn.
        train: how long and how.
        objective: the loss.
        start: the experiment whose trained model this training begins with, tokenizer and all; its
            run lies beside this one. A model that predicts in parallel may begin with a causal one
            of its width; a deeper or shallower one has its layers, in their order, repeated or
            left out. None: a new model.
        pretrained: the folder, in the models directory, of a model in Hugging Face's layout that is
            taken as it is. Nothing is trained then; `train` is what its students' is made of.
        decoders: what the benchmark compares, as `nar.decoders.make` reads it.
        more: decoders added by `--full`.
        language: order of the n-gram model of the training's targets that `--full` learns, for
            `ctc-beam`; 0: none.
        pieces: the tokenizer's kind; a student has its teacher's.
        metric: what outputs are compared by.
        bleu_tokenizer: sacreBLEU's name of BLEU's tokenizer; None: the target language's.
        tokenized: the target language, where papers' tokenised BLEU belongs into the report.
        protocol: how much the benchmark measures.
        tokens_per_batch: padded positions of a training batch, source and target together.
        width_multiple: what its sources and targets are padded to multiples of. Small ones pad
            less, for more shapes, each of which is compiled.
        max_length: longest source and target in tokens, and the most tokens that are decoded.
    """

    name: str
    about: str
    data: Data
    model: TransformerConfig
    train: TrainConfig
    objective: CrossEntropy | CTC | Masked = CrossEntropy()
    start: str | None = None
    pretrained: str | None = None
    decoders: tuple[str, ...]
    more: tuple[str, ...] = ()
    language: int = 0
    pieces: Pieces = "unigram"
    metric: MetricName = "bleu"
    bleu_tokenizer: str | None = None
    tokenized: str | None = None
    protocol: Protocol = Protocol()
    tokens_per_batch: int = 4096
    width_multiple: int = 4
    max_length: int = 64

    def __post_init__(self):
        for name in ("tokens_per_batch", "width_multiple", "max_length"):
            at_least(name, getattr(self, name), 1)
        at_least("language", self.language, 0)
        if self.start and self.pretrained:
            raise NarError(
                f"start={self.start!r} and pretrained={self.pretrained!r}: a model begins with one"
            )
        if self.metric not in METRICS:
            raise NarError(f"metric={self.metric!r}: it must be one of {', '.join(METRICS)}")

    @property
    def training(self) -> Training:
        """Whether the training's targets are people's ("raw") or a model's ("distilled")."""
        return self.data.training

    def check(self) -> None:
        """Raises a NarError when a decoder is none, or the metric cannot be used here."""
        make_metric(self.metric, language=self.data.target, tokenizer=self.bleu_tokenizer)
        for name in self.names(full=True):
            make(name, max_length=self.max_length)

    def names(self, *, full: bool) -> tuple[str, ...]:
        """The decoders' descriptions."""
        return (*self.decoders, *(self.more if full else ()))


def shaped(
    experiment: Experiment, encoder_layers: int, decoder_layers: int, steps: int | None = None
) -> Experiment:
    """The same experiment with other depths, for `--beside`: only baselines decode.

    Args:
        experiment: the original.
        encoder_layers: depth of the encoder.
        decoder_layers: depth of the decoder.
        steps: updates; None: as many as the original's.
    """
    depths = f"{encoder_layers}-{decoder_layers}"
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}_{depths}",
        about=f"{experiment.name} with {depths} layers of encoder and decoder",
        model=dataclasses.replace(
            experiment.model, encoder_layers=encoder_layers, decoder_layers=decoder_layers
        ),
        train=dataclasses.replace(experiment.train, steps=steps or experiment.train.steps),
        pretrained=None,
        decoders=("greedy", "beam"),
        more=(),
    )


def transformer(**options) -> TransformerConfig:
    """A transformer with the special ids of our tokenizers."""
    return TransformerConfig(pad=PAD, bos=BOS, eos=EOS, mask=MASK, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """A kind of model that predicts in parallel.

    Attributes:
        about: what it is.
        objective: its loss.
        decoders: what the benchmark compares.
        more: decoders added by `--full`; those that need a second model get the one that the
            training began with.
        model: what its transformer has that a causal one lacks.
        language: order of a language model of what it learns to write; 0: none.
    """

    about: str
    objective: CTC | Masked
    decoders: tuple[str, ...]
    more: tuple[str, ...]
    model: dict[str, Any]
    language: int = 0


CANVAS = {"upsample": 2, "blank": BLANK, "banned": ()}
"""Too short for fewer than 0.1 % of people's targets."""

LENGTHS = {"length_classes": 256}
RANKED = (
    "ctc-beam",
    "ctc-beam:alpha=0.3,beta=1.2",  # chosen on Multi30k's validation set
    "noisy-parallel:base=(ctc-beam:nbest=5)",
)
PARALLEL = {
    "ctc": Parallel(
        about="CTC", objective=CTC(), decoders=("ctc",), more=RANKED, model=CANVAS,
        language=4,
    ),
    "ctc-glat": Parallel(
        about="CTC with glancing", objective=CTC(glance=(0.5, 0.3)), decoders=("ctc",),
        more=RANKED, model=CANVAS, language=4,
    ),
    "mask-predict": Parallel(
        about="mask-predict", objective=Masked(),
        decoders=("mask-predict:calls=10,longer=16,length_weight=1",
                  "mask-predict:calls=4,longer=16,length_weight=1",
                  "mask-predict:calls=10,longer=16",
                  "threshold-unmasking:longer=16", "quota-unmasking:longer=16"),
        more=("noisy-parallel:base=(mask-predict:calls=10,longer=16)",), model=LENGTHS,
    ),
    "one-shot": Parallel(
        about="one shot, all tokens at once", objective=Masked(masking="all"),
        decoders=("mask-predict:calls=1,longer=16,length_weight=1",),
        more=("noisy-parallel:base=(mask-predict:calls=1,longer=16)",), model=LENGTHS,
    ),
}  # fmt: skip
"""The kinds by name."""


def parallel(experiment: Experiment, kind: str, *, teacher: Experiment) -> Experiment:
    """The same experiment with a model that predicts in parallel and begins with another's weights.

    Args:
        experiment: the original.
        kind: one of `PARALLEL`.
        teacher: a causal experiment on the same text, whose weights are taken.
    """
    chosen = PARALLEL[kind]
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}_{kind}",
        about=f"{experiment.name}, {chosen.about}",
        model=dataclasses.replace(
            experiment.model, causal=False, bidirectional=True, **chosen.model
        ),
        objective=chosen.objective,
        start=teacher.name,
        pretrained=None,
        decoders=chosen.decoders,
        more=chosen.more,
        language=chosen.language,
    )


def distilled(experiment: Experiment, student: Experiment, *, teacher: Experiment) -> Experiment:
    """A student that begins with its teacher's weights, and learns what the teacher writes.

    Args:
        experiment: whose text it is, and whose name the student's begins with.
        student: what `shaped` or `parallel` derived from it.
        teacher: a causal experiment on the same text.
    """
    return dataclasses.replace(
        student,
        start=teacher.name,
        name=f"{experiment.name}_distilled{student.name.removeprefix(experiment.name)}",
        about=f"{student.about}, on what {teacher.name} writes",
        data=DistilledData(teacher=teacher.name, original=experiment.data),
    )


def students(experiment: Experiment, *, teacher: Experiment) -> tuple[Experiment, ...]:
    """All parallel models, on raw text and on what a teacher makes of it, and what they must beat.

    The baseline that hurts is a deep encoder with a shallow decoder (Kasai et al. 2021); on raw
    text it is one of the shapes.

    Args:
        experiment: whose text it is.
        teacher: a causal experiment on the same text.
    """
    raw = tuple(parallel(experiment, kind, teacher=teacher) for kind in PARALLEL)
    taught = (*raw, shaped(experiment, 6, 1), shaped(experiment, 6, 6))
    return *raw, *(distilled(experiment, student, teacher=teacher) for student in taught)


FIXED_POINTS = (
    "jacobi",
    "jacobi:block=3",
    "jacobi:block=5",
    "gauss-seidel-jacobi:block=3",
    "gauss-seidel-jacobi:block=5",
    "gauss-seidel-jacobi:block=5,oracle_length=true",
    "hybrid-jacobi:block=3",
)
ON_CPU = Protocol(latency_sentences=60, latency_repeats=2, batch_sizes=(32, 128), batch_repeats=1)
"""About a quarter of an hour for a test set on two cores."""

GUESSES = tuple(f"jacobi:block=5,guess={guess}" for guess in ("source", "random", "previous"))

GRAMMAR = Experiment(
    name="grammar",
    about="the built-in English-German grammar: the whole pipeline in minutes, without any files",
    data=GrammarData(),
    model=transformer(vocab_size=600, d_model=128, d_ff=512, heads=4, encoder_layers=2,
                      decoder_layers=2, positions="rotary", max_positions=96, dropout=0.0),
    train=TrainConfig(
        steps=600,
        optimizer=OptimizerConfig(learning_rate=3e-3, schedule="cosine", warmup=60),
        validate_every=600,
        checkpoint_every=300,
    ),
    decoders=("greedy", "beam", "sample", "jacobi:block=5", "gauss-seidel-jacobi:block=5",
              "hybrid-jacobi:block=3"),
    more=("jacobi", "jacobi:block=3", *GUESSES),
    protocol=Protocol(
        latency_sentences=20, latency_repeats=1, batch_sizes=(64,), batch_repeats=1, cost_repeats=5,
        width_multiple=64,
    ),
    tokens_per_batch=2048,
    width_multiple=16,
)  # fmt: skip

MULTI30K = Experiment(
    name="multi30k_en-de",
    about="image captions, English to German: the main benchmark on CPU",
    data=FolderData(
        folder="multi30k", source="en", target="de", splits=("train", "val", "test_2016_flickr")
    ),
    model=transformer(vocab_size=8000, d_model=256, d_ff=1024, heads=8, encoder_layers=3,
                      decoder_layers=3, max_positions=256),
    train=TrainConfig(
        steps=2200,
        optimizer=OptimizerConfig(learning_rate=1.5e-3, schedule="cosine", warmup=300),
        validate_every=500,
        checkpoint_every=250,
        keep=3,
    ),
    decoders=("greedy", "beam", "sample", *FIXED_POINTS, *GUESSES),
    more=("jacobi:oracle_length=true", "hybrid-jacobi:block=5"),
    protocol=ON_CPU,
    max_length=80,
)  # fmt: skip

MULTI30K_LONGER = dataclasses.replace(
    MULTI30K,
    name="multi30k_en-de_longer",
    about="multi30k_en-de trained on, under more dropout: the best of these models",
    start=MULTI30K.name,
    model=dataclasses.replace(MULTI30K.model, dropout=0.3),
    train=dataclasses.replace(
        MULTI30K.train,
        steps=3000,
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup=100),
    ),
    decoders=("greedy", "beam"),
)  # fmt: skip

MULTI30K_MARIAN = dataclasses.replace(
    MULTI30K,
    name="multi30k_en-de_marian",
    about="image captions, translated by a Marian model that was trained elsewhere; it teaches",
    model=transformer(vocab_size=8005, d_model=256, d_ff=1024, heads=8, encoder_layers=3,
                      decoder_layers=3, max_positions=256, norm_position="post", norm_eps=1e-5,
                      activation="swish", logits_bias=True, blank=BLANK,
                      banned=(PAD, BOS, MASK, BLANK, SEP)),
    pretrained="marian-multi30k-en-de",
)  # fmt: skip

TATOEBA = dataclasses.replace(
    MULTI30K,
    name="tatoeba_en-de",
    about="short everyday sentences, English to German",
    data=FolderData(folder="tatoeba_de-en", source="en", target="de"),
    train=dataclasses.replace(MULTI30K.train, steps=2400),
)

G2P = Experiment(
    name="g2p",
    about="spelling to sound (CMUdict): nearly deterministic, letters to phones",
    data=FolderData(folder="cmudict_g2p", source="word", target="phones"),
    model=transformer(vocab_size=200, d_model=128, d_ff=512, heads=4, encoder_layers=3,
                      decoder_layers=3, max_positions=64),
    train=TrainConfig(
        steps=2000,
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup=200),
        validate_every=500,
        checkpoint_every=250,
        keep=3,
    ),
    decoders=("greedy", "beam", "sample", *FIXED_POINTS, *GUESSES),
    more=("jacobi:oracle_length=true", "hybrid-jacobi:block=5"),
    protocol=ON_CPU,
    pieces="words",
    metric="token_error",
    max_length=40,
)  # fmt: skip

MAIN = (GRAMMAR, G2P, MULTI30K, TATOEBA)
SHAPES = (
    shaped(GRAMMAR, 6, 1),
    shaped(G2P, 6, 6),
    shaped(G2P, 6, 1),
    shaped(MULTI30K, 6, 6, steps=1200),  # what an hour of two cores allows
    shaped(MULTI30K, 6, 1),
    shaped(TATOEBA, 6, 6),
    shaped(TATOEBA, 6, 1),
)
TEACHERS = (
    (GRAMMAR, GRAMMAR),
    (G2P, G2P),
    (MULTI30K, MULTI30K_LONGER),
    (MULTI30K_MARIAN, MULTI30K_MARIAN),
    (TATOEBA, TATOEBA),
)
STUDENTS = tuple(itertools.chain(*(students(e, teacher=teacher) for e, teacher in TEACHERS)))

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e for e in (*MAIN, MULTI30K_LONGER, MULTI30K_MARIAN, *SHAPES, *STUDENTS)
}
"""All experiments by name."""


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        NarError: there is none; the nearest names come first.
    """
    if name not in EXPERIMENTS:
        raise NarError(f"there is no experiment {name!r}; there are {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]
