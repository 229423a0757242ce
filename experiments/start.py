"""What a training begins with: a new model, another run's, or one that was trained elsewhere."""

import dataclasses
import pathlib

import jax
from rich.console import Console

from experiments import runs
from experiments.data import DISTILLED, DistilledData
from experiments.registry import Experiment
from nar.data.text import Corpus, texts
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError, differences
from nar.files import read_json
from nar.model import Transformer, TransformerConfig
from nar.pretrained import adopt
from nar.training import save_model
from nar.training.checkpoint import named_arrays, with_arrays
from nar.training.distillation import PROVENANCE
from nar.translator import load

FREE = (
    "vocab_size", "dropout", "causal", "bidirectional", "upsample", "length_classes", "mask",
    "blank", "banned", "encoder_layers", "decoder_layers",
)  # fmt: skip
"""Where a model may differ from the one that it begins with."""

console = Console(stderr=True)


def take_model(
    experiment: Experiment, run_dir: pathlib.Path, models_dir: pathlib.Path | None
) -> None:
    """Makes a pretrained model the run's.

    Raises:
        NarError: it is not there, is damaged, or has another shape than the experiment's.
    """
    assert experiment.pretrained
    if models_dir is None:
        raise NarError(
            f"this experiment takes the model {experiment.pretrained}/: say where with --models-dir"
        )
    model, tokenizer = adopt(models_dir / experiment.pretrained)
    if different := list(differences(runs.resolve(model.config), runs.resolve(experiment.model))):
        raise NarError(
            f"pretrained={experiment.pretrained!r} has another shape: {'; '.join(different)}"
        )
    tokenizer.save(run_dir / "model")
    save_model(run_dir / "model", model)


def first_model(
    experiment: Experiment, run_dir: pathlib.Path
) -> tuple[Transformer, Tokenizer] | None:
    """What the training begins with: another experiment's model, or nothing.

    Raises:
        NarError: that model is not trained yet, has another shape, or another vocabulary than the
            teacher.
    """
    if experiment.start is None:
        return None
    directory = runs.trained(run_dir.parent / experiment.start, what="start")
    start, tokenizer = load(directory), Tokenizer.load(directory)
    found = start.model.config
    config = dataclasses.replace(experiment.model, vocab_size=found.vocab_size)
    alike = dataclasses.replace(config, **{name: getattr(found, name) for name in FREE})
    if different := list(differences(runs.resolve(found), runs.resolve(alike))):
        raise NarError(f"start={experiment.start!r} has another shape: {'; '.join(different)}")
    teacher = teachers_tokenizer(experiment, run_dir)
    if teacher and teacher.fingerprint != tokenizer.fingerprint:
        raise NarError(
            f"start={experiment.start!r} has another vocabulary than the data's teacher "
            f"{experiment.data}: a student has its teacher's"
        )
    runs.note(run_dir, start={"experiment": experiment.start, "weights": start.weights})
    return adapted(start.model, config, experiment.train.seed), tokenizer


def adapted(model: Transformer, config: TransformerConfig, seed: int) -> Transformer:
    """A model of another kind, with all parameters that both have in one shape; others are new.

    The layers of a deeper or shallower stack are the other's, in their order, evenly repeated
    (Gong et al. 2019) or left out.
    """
    new = Transformer(config, key=jax.random.key(seed))
    known, arrays = named_arrays(model), named_arrays(new)
    for name, x in arrays.items():
        found = known.get(other_layer(name, config, model.config), x)
        arrays[name] = found if found.shape == x.shape else x
    return with_arrays(new, arrays)


def other_layer(name: str, config: TransformerConfig, other: TransformerConfig) -> str:
    """The parameter of a model from which that of a deeper or shallower one is taken."""
    for stack in ("encoder", "decoder"):
        if name.startswith(f"{stack}/layers/"):
            _, _, index, *rest = name.split("/")
            depth, others = (getattr(c, f"{stack}_layers") for c in (config, other))
            return "/".join([stack, "layers", str(int(index) * others // depth), *rest])
    return name


def teachers_tokenizer(experiment: Experiment, run_dir: pathlib.Path) -> Tokenizer | None:
    """The vocabulary of the model whose outputs are learnt; None: it is not known, or nobody's."""
    if not isinstance(experiment.data, DistilledData):
        return None
    return Tokenizer.load(
        runs.trained(run_dir.parent / experiment.data.teacher, what="data.teacher")
    )


def note_teacher(experiment: Experiment, run_dir: pathlib.Path) -> None:
    """Notes which model wrote the text that is learnt, and how, where one did.

    Raises:
        NarError: the teacher is another model by now.
    """
    if not isinstance(experiment.data, DistilledData):
        return
    directory = run_dir.parent / experiment.data.teacher
    made = read_json(directory / DISTILLED / PROVENANCE)
    now = load(runs.trained(directory, what="data.teacher")).weights
    if made["weights"] != now:
        raise NarError(
            f"{directory / DISTILLED} was written by the model {made['weights']}, and "
            f"{directory.name} is {now} now: move it away, and distill again"
        )
    about = {"experiment": directory.name, "weights": now, "decoder": made["decoder"]}
    runs.note(run_dir, teacher=about)


def first_tokenizer(experiment: Experiment, corpus: Corpus, run_dir: pathlib.Path) -> Tokenizer:
    """The run's tokenizer, the first time its teacher's, or learnt from the training text."""
    directory = run_dir / "model"
    if (directory / "tokenizer.model").exists():
        return Tokenizer.load(directory)
    if teacher := teachers_tokenizer(experiment, run_dir):
        return teacher
    console.print("learning the vocabulary")
    size = experiment.model.vocab_size
    return Tokenizer.train(texts(corpus), vocab_size=size, pieces=experiment.pieces)
