"""A run's directory: what it is a run of, with which code and text; and that it stays so.

config.json      the experiment, resolved: every setting
provenance.json  fingerprints of the text, the versions of the code, the machine, what it began with
tokens/ checkpoints/ metrics.jsonl events...    the training
model/           weights, config, tokenizer, about.json
distilled/       its text in the model's words, where it is a teacher: nar.training.distillation
4-gram.arpa      an n-gram model of the training's targets, where CTC is benchmarked in full
outputs/ report.json report.html                the benchmark
"""

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from experiments.data import SPLITS
from experiments.registry import Experiment
from nar.bench.protocol import ABOUT
from nar.bench.report import machine
from nar.data.text import Corpus, fingerprint
from nar.data.tokenizer import FILE as TOKENIZER
from nar.errors import NarError, differences
from nar.files import read_json, write
from nar.objectives import CrossEntropy

CONFIG, PROVENANCE = "config.json", "provenance.json"

TRAINED = (
    "name",
    "data",
    "model",
    "train",
    "objective",
    "start",
    "pretrained",
    "pieces",
    "tokens_per_batch",
    "width_multiple",
    "max_length",
)
"""The settings that make a trained model what it is."""


def claim(run_dir: pathlib.Path, experiment: Experiment) -> None:
    """Stores the experiment with its run.

    Of a run of other settings that trained nothing yet, say because they were wrong, nothing stays.

    Raises:
        NarError: the directory holds a run of other settings; the differences are named.
    """
    try:
        check(run_dir, experiment)
    except NarError:
        if begun(run_dir):
            raise
        for path in (run_dir / PROVENANCE, run_dir / "model" / TOKENIZER):
            path.unlink(missing_ok=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / CONFIG, described(experiment))


def begun(run_dir: pathlib.Path) -> bool:
    """Whether there is anything that was trained."""
    return any((run_dir / "checkpoints").glob("*")) or (run_dir / "model" / ABOUT).exists()


def check(run_dir: pathlib.Path, experiment: Experiment) -> None:
    """Raises a NarError where the directory holds a run of other settings; they are named."""
    path, wanted = run_dir / CONFIG, described(experiment)
    if path.exists():
        found = with_defaults(json.loads(path.read_text()), experiment)
        found["objective"].setdefault("name", CrossEntropy.__name__)  # once there was no other
        refuse(run_dir, {k: found.get(k) for k in TRAINED}, {k: wanted[k] for k in TRAINED})


def described(experiment: Experiment) -> dict[str, Any]:
    """An experiment as its run stores it; the objective says which one it is."""
    config = resolve(experiment)
    config["objective"] = {"name": type(experiment.objective).__name__, **config["objective"]}
    return config


def resolve(config: Any) -> dict[str, Any]:
    """A config as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def with_defaults(found: Any, config: Any) -> Any:
    """A stored config; what was no setting yet when it was stored was as the default is now."""
    if not (dataclasses.is_dataclass(config) and isinstance(found, dict)):
        return found
    filled = dict(found)
    for field in dataclasses.fields(config):
        if field.name in found:
            filled[field.name] = with_defaults(found[field.name], getattr(config, field.name))
        elif field.default is not dataclasses.MISSING:
            filled[field.name] = json.loads(json.dumps(field.default, default=dataclasses.asdict))
    return filled


def refuse(run_dir: pathlib.Path, found: object, wanted: object) -> None:
    """Raises a NarError that names the differences, where there are any."""
    if different := list(differences(found, wanted)):
        raise NarError(
            f"{run_dir} holds another run: {'; '.join(different)}. Choose another --run-dir"
        )


def record(run_dir: pathlib.Path, corpora: Mapping[str, Corpus]) -> None:
    """Notes which text and code a run is made with; the code may change while it lasts.

    Raises:
        NarError: the run was begun with other text.
    """
    found = note(run_dir, data={split: fingerprint(corpora[split]) for split in SPLITS})
    now = code()
    codes = [*(one for one in found.get("code", ()) if one != now), now]
    write_json(run_dir / PROVENANCE, {**found, "code": codes, "machine": machine()})


def note(run_dir: pathlib.Path, **about: Any) -> dict[str, Any]:
    """Notes what a run is made of, and gives all that is noted.

    Raises:
        NarError: the run was begun with something else.
    """
    path = run_dir / PROVENANCE
    found = json.loads(path.read_text()) if path.exists() else {}
    again = found.keys() & about.keys()
    refuse(run_dir, {k: found[k] for k in again}, {k: about[k] for k in again})
    write_json(path, {**found, **about})
    return {**found, **about}


def same(one: pathlib.Path, other: pathlib.Path, names: Sequence[str]) -> bool:
    """Whether two runs have noted the same under each of some names."""
    first, second = (read_json(directory / PROVENANCE) for directory in (one, other))
    return all(first.get(name) == second.get(name) for name in names)


def code() -> dict[str, str | None]:
    """The version of nar, and of its source where that is in a repository."""
    root = pathlib.Path(__file__).parent.parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(root), *arguments]
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    commit = git("rev-parse", "HEAD")
    changed = commit and git("status", "--porcelain", "--untracked-files=no")
    return {"nar": version("nar"), "commit": f"{commit} with changes" if changed else commit}


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes what JSON can say."""
    write(path, json.dumps(value, indent=2) + "\n")


def trained(run_dir: pathlib.Path, *, what: str = "model") -> pathlib.Path:
    """The directory of a run's model.

    Raises:
        NarError: it is not trained yet; `what` it is asked for is named.
    """
    directory = run_dir / "model"
    if not (directory / ABOUT).exists():
        raise NarError(
            f"{what}={run_dir.name!r}: {directory} holds no trained model: train it first"
        )
    return directory
