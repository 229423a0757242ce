"""Runs an experiment: text, tokenizer, training; then every decoder, and the report."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.console import Console

from experiments import runs
from experiments.data import DISTILLED, SPLITS
from experiments.registry import Experiment
from experiments.start import first_model, first_tokenizer, note_teacher, take_model
from nar import compilation_cache
from nar.bench.protocol import ABOUT, System
from nar.bench.publish import publish
from nar.bench.report import FILE, Report, machine
from nar.data.batching import Batch, Plan, training_batches
from nar.data.encoded import Encoded, encode_corpus
from nar.data.text import Corpus, overlap
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError, differences
from nar.files import read_json
from nar.model import Transformer
from nar.ngram import learn_arpa
from nar.progress import Progress
from nar.training import save_model
from nar.training import train as train_model
from nar.training.distillation import distill as translate_corpora
from nar.translator import load

LANGUAGE = "{order}-gram.arpa"
"""The file, in a run, of a language model of what it learned to write."""

BASELINES = ("greedy", "beam")
"""What decodes with the causal models of other runs."""

console = Console(stderr=True)


def open_corpora(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, Corpus]:
    """The experiment's text, by split; what a teacher made of it lies in the run beside this one.

    Raises:
        NarError: it is missing or damaged, or the experiment names decoders that there are not.
    """
    experiment.check()
    return {split: experiment.data.open(split, data_dir, run_dir.parent) for split in splits}


def train(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    models_dir: pathlib.Path | None = None,
) -> None:
    """Trains the experiment's model; a finished one stays, an interrupted training goes on.

    Args:
        experiment: what to do.
        run_dir: where; one directory a run.
        data_dir: where data other than the grammar's lies.
        models_dir: where pretrained models lie.

    Raises:
        NarError: something of the data, or of another run in the same directory, does not fit.
    """
    corpora = open_corpora(experiment, run_dir, data_dir)
    runs.claim(run_dir, experiment)
    runs.record(run_dir, corpora)
    if (run_dir / "model" / ABOUT).exists():
        return
    note_teacher(experiment, run_dir)
    for split in ("valid", "test"):
        overlap(corpora["train"], corpora[split])
    if experiment.pretrained:
        take_model(experiment, run_dir, models_dir)
    else:
        start = first_model(experiment, run_dir)
        tokenizer = start[1] if start else first_tokenizer(experiment, corpora["train"], run_dir)
        tokenizer.save(run_dir / "model")
        learn_model(experiment, corpora, tokenizer, run_dir, start and start[0])
    about = {
        "name": experiment.name,
        "training": experiment.training,
        "seed": experiment.train.seed,
        "max_length": experiment.max_length,
    }
    runs.write_json(run_dir / "model" / ABOUT, about)  # the last file: now the model is whole


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
    check_positions(experiment, model, [*encoded.values()], corpora["test"], tokenizer)
    size = sum(x.size for x in jax.tree.leaves(model))
    console.print(f"training {size / 1e6:.1f} million parameters on {len(encoded['train'])} pairs")
    batches = training_batches(
        encoded["train"],
        experiment.tokens_per_batch,
        seed=experiment.train.seed,
        max_length=experiment.max_length,
        width_multiple=experiment.width_multiple,
    )
    validation = Validation(encoded["valid"], experiment)
    with compilation_cache.enabled():
        trained = train_model(
            model,
            experiment.objective,
            batches,
            experiment.train,
            run_dir,
            validation=validation,
        )
    save_model(run_dir / "model", trained)


def check_positions(
    experiment: Experiment,
    model: Transformer,
    encoded: Sequence[Encoded],
    test: Corpus,
    tokenizer: Tokenizer,
) -> None:
    """Raises a NarError where the model has fewer positions than it will need.

    Sources have places, upsampled, and outputs up to `max_length`. Pairs to learn from that are
    longer than that are left out in any case.
    """
    length = experiment.max_length
    if length > (room := model.spec.max_target or length):
        raise NarError(f"max_length={length}: the model has {room} positions for an output")
    most = [len(row) for row in tokenizer.encode([test[i][0] for i in range(len(test))])]
    for text in encoded:
        for _, lengths in text.lengths():
            kept = lengths[(lengths <= experiment.max_length).all(1)]
            most.append(int(kept[:, 0].max(initial=0)))
    if max(most) > (room := model.spec.max_source or max(most)):
        c = model.config
        raise NarError(
            f"a source has {max(most)} tokens, and the model reads at most {room}: "
            f"max_positions={c.max_positions}, upsample={c.upsample}"
        )


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation set's batches, as often as they are asked for."""

    encoded: Encoded
    experiment: Experiment

    def __iter__(self) -> Iterator[Batch]:
        plan = Plan(
            self.encoded,
            self.experiment.tokens_per_batch,
            max_length=self.experiment.max_length,
            width_multiple=self.experiment.width_multiple,
        )
        return plan.epoch()


def distill(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    *,
    decoder: str = "beam",
    batch_size: int = 64,
    shard: tuple[int, int] = (0, 1),
) -> bool:
    """Translates the training and validation text with the run's model, for students.

    Args:
        experiment: of the teacher.
        run_dir: of its finished training; the corpus goes there, into distilled/.
        data_dir: where data other than the grammar's lies.
        decoder: as `nar.make` reads it.
        batch_size: sources decoded together.
        shard: `(i, n)`: the i-th of n parts.

    Returns:
        Whether the corpus is whole; if not, other shards are not done yet.

    Raises:
        NarError: there is no trained model, it was trained with other settings, or what is there
            was made in another way; the differences are named.
    """
    corpora = open_corpora(experiment, run_dir, data_dir, SPLITS[:2])
    runs.check(run_dir, experiment)
    translator = load(runs.trained(run_dir))
    method = translator.make_decoder(decoder, experiment.max_length)
    with compilation_cache.enabled(), Progress() as progress:
        return translate_corpora(
            translator,
            corpora,
            method,
            run_dir / DISTILLED,
            about={"teacher": experiment.name, "code": runs.code(), "machine": machine()},
            batch_size=batch_size,
            shard=shard,
            progress=progress,
        )


def learn_language(experiment: Experiment, corpus: Corpus, run_dir: pathlib.Path) -> None:
    """Learns an n-gram model of what the run's model learnt to write; a finished one stays."""
    path = run_dir / LANGUAGE.format(order=experiment.language)
    if not path.exists():
        tokenizer = Tokenizer.load(runs.trained(run_dir))
        targets = [corpus[i][1] for i in range(len(corpus))]
        learn_arpa(path, targets, tokenizer, order=experiment.language)


def systems(
    experiment: Experiment, run_dir: pathlib.Path, *, beside: Sequence[pathlib.Path], full: bool
) -> list[System]:
    """The run's model with the experiment's decoders, and other runs' models with theirs.

    Of other causal models only `BASELINES` decode. The first causal model comes first: its greedy
    is what all are compared with. To a model that is not causal, the one that it began with joins;
    in full, that one ranks its candidates, and takes its outputs as drafts. So it does, but for the
    drafts, for other students that began with it and learnt the same text, unless they want another
    language model than the run's.
    """
    start = run_dir.parent / (experiment.start or "")
    joined = experiment.start is not None and not experiment.model.causal
    named = [directory.resolve() for directory in beside]
    first = [start] if joined and start.resolve() not in named else []
    directories = dict.fromkeys((run_dir, *first, *beside))
    found, causal = [], {}
    own = {"reranker": runs.trained(start)} if joined and full else {}
    if experiment.language and full:
        own["language"] = run_dir / LANGUAGE.format(order=experiment.language)
    for directory in directories:
        model = runs.trained(directory)
        config = runs.with_defaults(read_json(directory / runs.CONFIG), experiment)
        causal[model] = config["model"].get("causal", True)
        decoders, helpers = BASELINES if causal[model] else tuple(config["decoders"]), {}
        alike = joined and full and runs.same(run_dir, directory, ("start", "data"))
        if directory == run_dir:
            decoders, helpers = experiment.names(full=full), own
        elif alike and not causal[model] and config["language"] in (0, experiment.language):
            decoders, helpers = (*decoders, *config["more"]), own
        elif directory.resolve() == start.resolve() and joined and full:
            decoders = (*decoders, f"parallel-draft:base=({experiment.decoders[0]})")
            helpers = {"draft": runs.trained(run_dir)}
        found.append((model, decoders, helpers))
    baseline = next(filter(causal.get, causal), None)
    found.sort(key=lambda one: one[0] != baseline)
    return [System.load(model, decoders, **helpers) for model, decoders, helpers in found]


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
    corpora = open_corpora(experiment, run_dir, data_dir)
    runs.check(run_dir, experiment)
    runs.trained(run_dir)  # or raises, before anything is written
    runs.record(run_dir, corpora)
    if experiment.language and full:
        learn_language(experiment, corpora["train"], run_dir)
    found = systems(experiment, run_dir, beside=beside, full=full)
    runs.claim(run_dir, experiment)
    return publish(
        found,
        corpora["test"],
        run_dir,
        title=experiment.name,
        data=experiment.data.describe("test"),
        metric=experiment.metric,
        language=experiment.data.target,
        tokenizer=experiment.bleu_tokenizer,
        tokenized=experiment.tokenized,
        protocol=experiment.protocol,
    )


def run(
    experiment: Experiment,
    run_dir: pathlib.Path,
    data_dir: pathlib.Path | None,
    *,
    models_dir: pathlib.Path | None = None,
    beside: Sequence[pathlib.Path] = (),
    full: bool = False,
) -> Report:
    """Trains and benchmarks; what is finished is not done again.

    Raises:
        NarError: as `train` and `bench`, or the run's report is one of other decoders or another
            protocol: the differences are named, and `bench` measures anew.
    """
    train(experiment, run_dir, data_dir, models_dir)
    if not (run_dir / FILE).exists():
        return bench(experiment, run_dir, data_dir, beside=beside, full=full)
    report = Report.load(run_dir)
    wanted = {
        "protocol": runs.resolve(experiment.protocol),
        "decoders": {
            system.name: list(system.make_decoders())
            for system in systems(experiment, run_dir, beside=beside, full=full)
        },
    }
    found: dict[str, Any] = {"protocol": report.protocol, "decoders": {}}
    for row in report.rows:
        found["decoders"].setdefault(row.model, []).append(row.decoder)
    if different := list(differences(found, wanted)):
        raise NarError(
            f"{run_dir / FILE} is another benchmark: {'; '.join(different)}. `bench` replaces it"
        )
    return report
