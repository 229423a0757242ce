"""Runs an experiment: text, tokenizer, training, decoding, and the table that compares decoders."""

import dataclasses
import itertools
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.data import SPLITS
from experiments.registry import Experiment
from experiments.table import show
from nar.bench.measure import Measurement, measure
from nar.bench.quality import Quality, quality
from nar.core import NarError
from nar.data.batching import Batch, Plan, training_batches
from nar.data.encoded import Encoded, encode_corpus
from nar.data.text import Corpus, overlap
from nar.data.tokenizer import Tokenizer
from nar.model import Transformer
from nar.training import load_model, save_model, train

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Row:
    """A decoder's line of the table."""

    measurement: Measurement
    quality: Quality


def run(
    experiment: Experiment, run_dir: pathlib.Path, data_dir: pathlib.Path | None, *, full: bool
) -> list[Row]:
    """Does all of an experiment that its run directory does not hold yet.

    Args:
        experiment: what to do.
        run_dir: `config.json`, token files, checkpoints, metrics, the trained `model/` with its
            tokenizer, `outputs/` and `results.json` are here.
        data_dir: where data other than the grammar's lies.
        full: also run the decoders that the short version leaves out.

    Raises:
        NarError: something of the data or of an earlier run in the same directory does not fit.
    """
    claim(run_dir, experiment)
    corpora = {split: experiment.data.open(split, data_dir) for split in SPLITS}
    for split in ("valid", "test"):
        overlap(corpora["train"], corpora[split])
    tokenizer = learn_tokenizer(experiment, corpora["train"], run_dir)
    model = learn_model(experiment, corpora, tokenizer, run_dir)
    rows = compare(experiment, model, tokenizer, corpora["test"], run_dir, full=full)
    return rows


def claim(run_dir: pathlib.Path, experiment: Experiment) -> None:
    """Stores the experiment with its run; refuses a directory that another one has."""
    path, resolved = run_dir / "config.json", dataclasses.asdict(experiment)
    resolved = json.loads(json.dumps(resolved))
    for name in ("decoders", "more", "about", "batch_size"):
        resolved.pop(name)  # do not change what is trained
    if path.exists():
        found = json.loads(path.read_text())
        if different := list(differences(found, resolved)):
            raise NarError(
                f"{run_dir} holds another run: {'; '.join(different)}. Choose another --run-dir"
            )
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(resolved, indent=2) + "\n")


def differences(found: object, wanted: object, name: str = "") -> Iterator[str]:
    """Where two nested configurations differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(found.get(key), wanted.get(key), inner)
    elif found != wanted:
        yield f"{name} is {found!r} there and {wanted!r} here"


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
) -> Transformer:
    """The run's model, trained the first time; a training that was stopped goes on."""
    directory = run_dir / "model"
    if (directory / "config.json").exists():
        return load_model(directory)
    encoded = {s: encode_corpus(corpora[s], tokenizer, run_dir / "tokens") for s in SPLITS[:2]}
    config = dataclasses.replace(experiment.model, vocab_size=tokenizer.vocab_size)
    model = Transformer(config, key=jax.random.key(experiment.train.seed))
    size = sum(x.size for x in jax.tree.leaves(model))
    console.print(f"training {size / 1e6:.1f} million parameters on {len(encoded['train'])} pairs")
    trained = train(
        model,
        experiment.objective,
        training_batches(
            encoded["train"],
            experiment.tokens_per_batch,
            seed=experiment.train.seed,
            max_length=experiment.max_length,
            width_multiple=4,  # pads less, for a few shapes more
        ),
        experiment.train,
        run_dir,
        validation=Validation(encoded["valid"], experiment),
    )
    save_model(directory, trained)
    return trained


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


def compare(
    experiment: Experiment,
    model: Transformer,
    tokenizer: Tokenizer,
    test: Corpus,
    run_dir: pathlib.Path,
    *,
    full: bool,
) -> list[Row]:
    """Decodes the whole test set with every decoder, and scores the outputs."""
    decoders = experiment.make_decoders(full=full)
    pairs = [test[i] for i in range(len(test))]
    sources = tokenizer.encode([source for source, _ in pairs])
    references = [reference for _, reference in pairs]
    with Progress(
        TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=len(sources))
        measurements = measure(
            decoders,
            model,
            sources,
            batch_size=experiment.batch_size,
            progress=lambda done: progress.update(task, completed=done),
        )
    rows = []
    for m in measurements:
        texts = tokenizer.decode(m.outputs)
        write_outputs(run_dir / "outputs", m.decoder, texts)
        rows.append(Row(m, quality(experiment.metric, texts, references)))
    results = as_results(experiment, rows)
    (run_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    return rows


def write_outputs(directory: pathlib.Path, decoder: str, texts: Sequence[str]) -> None:
    """One text a line."""
    directory.mkdir(parents=True, exist_ok=True)
    name = decoder.replace(":", "_").replace(",", "_").replace("=", "-")
    (directory / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts))


def as_results(experiment: Experiment, rows: Sequence[Row]) -> dict[str, Any]:
    """The table's numbers, and what they were measured on."""
    return {
        "experiment": experiment.name,
        "machine": f"{os.cpu_count()} {platform.machine()} cores"
        if jax.default_backend() == "cpu"
        else jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "batch_size": experiment.batch_size,
        "sentences": len(rows[0].measurement.outputs),
        "rows": [
            {k: v for k, v in dataclasses.asdict(row.measurement).items() if k != "outputs"}
            | dataclasses.asdict(row.quality)
            for row in rows
        ],
    }
