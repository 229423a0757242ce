"""Runs an experiment: text, tokenizer, training; then every decoder, and the report."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import jax
from rich.console import Console

from experiments import runs
from experiments.data import SPLITS
from experiments.registry import Experiment
from nar.bench.protocol import ABOUT, System
from nar.bench.publish import publish
from nar.bench.report import FILE, Report
from nar.core import NarError
from nar.data.batching import Batch, Plan, training_batches
from nar.data.encoded import Encoded, encode_corpus
from nar.data.text import Corpus, overlap
from nar.data.tokenizer import Tokenizer
from nar.model import Transformer
from nar.training import load_model, save_model
from nar.training import train as train_model
from nar.training.checkpoint import named_arrays, with_arrays

BASELINES = ("greedy", "beam")
"""What decodes with the models of other runs."""

console = Console(stderr=True)


@contextlib.contextmanager
def remembered_programs() -> Iterator[None]:
    """Compiled programs are kept between runs; but what is benchmarked is compiled for real."""
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    home = str(pathlib.Path.home() / ".cache" / "nar")
    jax.config.update("jax_compilation_cache_dir", before or home)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    compilation_cache.reset_cache()  # JAX decides once whether it has a cache
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()


def open_corpora(experiment: Experiment, data_dir: pathlib.Path | None) -> dict[str, Corpus]:
    """The experiment's text, by split.

    Raises:
        NarError: it is missing or damaged.
    """
    return {split: experiment.data.open(split, data_dir) for split in SPLITS}


def train(experiment: Experiment, run_dir: pathlib.Path, data_dir: pathlib.Path | None) -> None:
    """Trains the experiment's model; a finished one stays, an interrupted training goes on.

    Args:
        experiment: what to do.
        run_dir: where; one directory a run.
        data_dir: where data other than the grammar's lies.

    Raises:
        NarError: something of the data, or of another run in the same directory, does not fit.
    """
    corpora = open_corpora(experiment, data_dir)
    runs.claim(run_dir, experiment)
    runs.record(run_dir, corpora)
    if (run_dir / "model" / ABOUT).exists():
        return
    for split in ("valid", "test"):
        overlap(corpora["train"], corpora[split])
    start = first_model(experiment, run_dir)
    tokenizer = start[1] if start else learn_tokenizer(experiment, corpora["train"], run_dir)
    learn_model(experiment, corpora, tokenizer, run_dir, start and start[0])
    about = {
        "name": experiment.name,
        "training": experiment.training,
        "seed": experiment.train.seed,
        "max_length": experiment.max_length,
    }
    runs.write_json(run_dir / "model" / ABOUT, about)  # the last file: now the model is whole


def first_model(
    experiment: Experiment, run_dir: pathlib.Path
) -> tuple[Transformer, Tokenizer] | None:
    """What the training begins with: another experiment's model, or nothing.

    Raises:
        NarError: that model is not trained yet, or has another shape.
    """
    if experiment.start is None:
        return None
    directory = run_dir.parent / experiment.start / "model"
    if not (directory / ABOUT).exists():
        raise NarError(
            f"start={experiment.start!r}: {directory} holds no trained model: train it first"
        )
    model, tokenizer = load_model(directory), Tokenizer.load(directory)
    free = {"vocab_size": model.config.vocab_size, "dropout": model.config.dropout}
    wanted = dataclasses.replace(experiment.model, **free)
    if different := list(runs.differences(runs.resolve(model.config), runs.resolve(wanted))):
        raise NarError(f"start={experiment.start!r} has another shape: {'; '.join(different)}")
    tokenizer.save(run_dir / "model")
    return with_dropout(model, experiment.model.dropout), tokenizer


def with_dropout(model: Transformer, dropout: float) -> Transformer:
    """The same parameters under another dropout."""
    config = dataclasses.replace(model.config, dropout=dropout)
    new = jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0)))
    return with_arrays(new, named_arrays(model))


def learn_tokenizer(experiment: Experiment, corpus: Corpus, run_dir: pathlib.Path) -> Tokenizer:
    """The run's tokenizer, learnt from the training text the first time."""
    directory = run_dir / "model"
    if (directory / "tokenizer.model").exists():
        return Tokenizer.load(directory)
    console.print("learning the vocabulary")
    texts = itertools.chain.from_iterable(corpus[i] for i in range(len(corpus)))
    tokenizer = Tokenizer.train(
        texts, vocab_size=experiment.model.vocab_size, pieces=experiment.pieces
    )
    tokenizer.save(directory)
    return tokenizer


def learn_model(
    experiment: Experiment,
    corpora: dict[str, Corpus],
    tokenizer: Tokenizer,
    run_dir: pathlib.Path,
    start: Transformer | None = None,
) -> None:
    """Trains, from `start` where there is one; what was stopped goes on."""
    encoded = {s: encode_corpus(corpora[s], tokenizer, run_dir / "tokens") for s in SPLITS[:2]}
    config = dataclasses.replace(experiment.model, vocab_size=tokenizer.vocab_size)
    model = start or Transformer(config, key=jax.random.key(experiment.train.seed))
    size = sum(x.size for x in jax.tree.leaves(model))
    console.print(f"training {size / 1e6:.1f} million parameters on {len(encoded['train'])} pairs")
    batches = training_batches(
        encoded["train"],
        experiment.tokens_per_batch,
        seed=experiment.train.seed,
        max_length=experiment.max_length,
        width_multiple=4,  # pads less, for a few shapes more
    )
    validation = Validation(encoded["valid"], experiment)
    with remembered_programs():
        trained = train_model(
            model,
            experiment.objective,
            batches,
            experiment.train,
            run_dir,
            validation=validation,
        )
    save_model(run_dir / "model", trained)


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation set's batches, as often as they are asked for."""

    encoded: Encoded
    experiment: Experiment

    def __iter__(self) -> Iterator[Batch]:
        plan = Plan(
            self.encoded, self.experiment.tokens_per_batch, max_length=self.experiment.max_length
        )
        return plan.epoch()


def systems(
    experiment: Experiment, run_dir: pathlib.Path, *, beside: Sequence[pathlib.Path], full: bool
) -> list[System]:
    """The run's model with the experiment's decoders, and other runs' models with baselines."""
    for directory in (run_dir, *beside):
        if not (directory / "model" / ABOUT).exists():
            raise NarError(f"{directory} holds no trained model: train it first")
    main = System.load(run_dir / "model", experiment.names(full=full))
    return [main, *(System.load(directory / "model", BASELINES) for directory in beside)]


def bench(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    *,
    beside: Sequence[pathlib.Path] = (),
    full: bool = False,
) -> Report:
    """Runs the experiment's decoders over the test set, and writes the report anew.

    Args:
        experiment: what to do.
        run_dir: of a finished training.
        data_dir: where data other than the grammar's lies.
        beside: other finished runs on the same text, whose models' baselines join the report.
        full: also run the decoders that the short version leaves out.

    Raises:
        NarError: there is no trained model, or it was trained with other settings or text.
    """
    corpora = open_corpora(experiment, data_dir)
    found = systems(experiment, run_dir, beside=beside, full=full)
    runs.claim(run_dir, experiment)
    runs.record(run_dir, corpora)
    return publish(
        found,
        corpora["test"],
        run_dir,
        title=experiment.name,
        data=experiment.data.describe("test"),
        metric=experiment.metric,
        tokenized=experiment.tokenized,
        protocol=experiment.protocol,
    )


def run(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    *,
    beside: Sequence[pathlib.Path] = (),
    full: bool = False,
) -> Report:
    """Trains and benchmarks; what is finished is not done again.

    Raises:
        NarError: as `train` and `bench`, or the run's report is one of other decoders or another
            protocol: the differences are named, and `bench` measures anew.
    """
    train(experiment, run_dir, data_dir)
    if not (run_dir / FILE).exists():
        return bench(experiment, run_dir, data_dir, beside=beside, full=full)
    report = Report.load(run_dir)
    main, *others = systems(experiment, run_dir, beside=beside, full=full)
    wanted = {
        "protocol": runs.resolve(experiment.protocol),
        "decoders": list(main.make_decoders()),
        "beside": [system.name for system in others],
    }
    models = list(dict.fromkeys(row.model for row in report.rows))
    found = {
        "protocol": report.protocol,
        "decoders": [row.decoder for row in report.rows if row.model == models[0]],
        "beside": models[1:],
    }
    if different := list(runs.differences(found, wanted)):
        raise NarError(
            f"{run_dir / FILE} is another benchmark: {'; '.join(different)}. `bench` replaces it"
        )
    return report
