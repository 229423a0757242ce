"""Checkpoints of a training, and finished models. Neither is ever half there.

A checkpoint appears under its name when it is complete (Orbax writes beside it and renames). It
says of every array its shape, type and checksum, so that what another model wrote and what a disk
damaged are told apart, and named, before anything is used.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import re
import sys
import textwrap
import traceback
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nar.errors import NarError, in_a_line
from nar.files import replacing
from nar.model import Transformer, TransformerConfig

CONFIG, WEIGHTS = "config.json", "weights.npz"


class DamagedCheckpoint(NarError):
    """A checkpoint or a saved model cannot be read; the message names it and what can be done."""


class MismatchedCheckpoint(NarError):
    """What was saved has other arrays than the model; the message names both sides."""


class UnwrittenCheckpoint(NarError):
    """A checkpoint could not be written; the message names the file, and what is kept."""


# ------------------------------------------------------------------------------- trees of arrays
def named_arrays(tree: Any) -> dict[str, Any]:
    """The arrays of a pytree by their path, such as "decoder/layers/0/attention/qkv/weight"."""
    is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): jax.tree.leaves(x)[0]
        for path, x in leaves
    }


def with_arrays(tree: Any, arrays: Mapping[str, Any]) -> Any:
    """The pytree with its arrays replaced, by name."""
    names = named_arrays(tree)
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names])


def describe(arrays: Mapping[str, jax.Array]) -> dict[str, list[Any]]:
    """Of named arrays: type and shape as text, and a checksum."""
    sums = jax.device_get(jax.tree.map(checksum, dict(arrays)))
    return {name: [_kind(x), int(sums[name])] for name, x in arrays.items()}


@jax.jit
def checksum(x: jax.Array) -> jax.Array:
    """The sum of an array's bits as whole numbers, modulo 2 ** 32: the same on every mesh."""
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
    return jnp.sum(bits, dtype=jnp.uint32)


def check_arrays(
    path: pathlib.Path, found: Mapping[str, list[Any]], wanted: Mapping[str, Any]
) -> None:
    """Raises unless arrays that were described have the names, types and shapes of others.

    Raises:
        MismatchedCheckpoint: names the first difference, and both sides of it.
    """
    for name in sorted(found.keys() | wanted.keys()):
        here = found[name][0] if name in found else "missing"
        there = _kind(wanted[name]) if name in wanted else "missing"
        if here != there:
            raise MismatchedCheckpoint(
                f"{path} does not fit the model: {name} is {here} there, and {there} in the model"
            )


def _kind(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


# ----------------------------------------------------------------------------------- checkpoints
class Checkpoints:
    """The checkpoints of one run: the latest ones, and the best one.

    Args:
        directory: where they are; made when it is not there.
        keep: how many of the latest ones stay.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 5):
        import orbax.checkpoint as ocp

        self.directory = pathlib.Path(directory).absolute()
        self._args, self._stay = ocp.args, _Stay(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._stay, cleanup_tmp_directories=True
        )
        _report_once()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._naming_failure():
                self._manager.close()
        except UnwrittenCheckpoint:
            if kind is None or not issubclass(kind, NarError):
                raise  # but what ended the training already is said first, and alone

    @property
    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, ascending.

        Raises:
            UnwrittenCheckpoint: the last one could not be written.
        """
        with self._naming_failure():
            self._manager.wait_until_finished()
        return sorted(self._manager.all_steps())

    def save(
        self, step: int, trees: Mapping[str, Any], record: Any, best: int | None = None
    ) -> None:
        """Saves trees of arrays and a JSON-able record; returns before all is on the disk.

        Args:
            step: the name.
            trees: pytrees by name; each can be restored alone.
            record: what is not an array.
            best: the step of a checkpoint that stays, beside the latest ones.

        Raises:
            UnwrittenCheckpoint: this one cannot be written, or the one before it could not.
        """
        arrays = {name: named_arrays(tree) for name, tree in trees.items()}
        about = {name: describe(tree) for name, tree in arrays.items()}
        about = json.dumps({"arrays": about, "record": record})
        self._stay.best = best
        args = self._args.Composite(
            about=self._args.JsonSave({"json": about, "crc32": zlib.crc32(about.encode())}),
            **{name: self._args.StandardSave(tree) for name, tree in arrays.items()},
        )
        with self._naming_failure():
            self._manager.save(step, args=args)

    def restore(self, step: int, like: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Restores trees onto the devices of others.

        Args:
            step: which checkpoint.
            like: by name, pytrees of arrays; saved ones that are not named are not read.

        Returns:
            The trees, and the record.

        Raises:
            MismatchedCheckpoint: the arrays have other names, shapes or types.
            DamagedCheckpoint: it cannot be read, or holds something else than was saved.
        """
        path, args = self.directory / str(step), self._args
        with self._naming_damage(step):
            about = self._manager.restore(step, args=args.Composite(about=args.JsonRestore()))
            about = about["about"]
            if zlib.crc32(about["json"].encode()) != about["crc32"]:
                raise ValueError("the description of its arrays has changed")
            about = json.loads(about["json"])
        wanted = {name: named_arrays(tree) for name, tree in like.items()}
        for name, tree in wanted.items():
            check_arrays(path / name, about["arrays"][name], tree)
        with self._naming_damage(step):
            places = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), wanted
            )
            found = self._manager.restore(
                step,
                args=args.Composite(
                    **{name: args.StandardRestore(tree) for name, tree in places.items()}
                ),
            )
            for name in like:
                now, then = describe(found[name]), about["arrays"][name]
                if changed := [key for key in now if now[key] != then[key]]:
                    raise ValueError(f"{name}/{changed[0]} holds other numbers than were saved")
        return {name: with_arrays(like[name], found[name]) for name in like}, about["record"]

    def average(self, steps: Sequence[int], like: Any, name: str = "model") -> Any:
        """The mean of one tree of several checkpoints (Vaswani et al. 2017)."""
        trees = (self.restore(step, {name: like})[0][name] for step in steps)
        total = next(trees)
        for tree in trees:
            total = jax.tree.map(jnp.add, total, tree)
        return jax.tree.map(lambda x: x / len(steps), total)

    @contextlib.contextmanager
    def _naming_failure(self) -> Iterator[None]:
        # Files are written in threads, and by libraries that tell what the system said in words.
        try:
            yield
        except Exception as error:
            if (reason := system_error(error)) is None:
                raise
            if reason.filename is None:
                reason.filename = str(self.directory)
            there = [int(path.name) for path in self.directory.glob("*") if path.name.isdigit()]
            kept = f"that of step {max(there)} is kept" if there else "there is none yet"
            raise UnwrittenCheckpoint(
                f"{in_a_line(reason)}. The training has stopped, without a checkpoint; {kept} in "
                f"{self.directory}, and with more room the same call goes on"
            ) from error

    @contextlib.contextmanager
    def _naming_damage(self, step: int) -> Iterator[None]:
        # What a damaged file raises depends on the file: JSON, Orbax, TensorStore have their own.
        try:
            yield
        except Exception as error:
            earlier = [s for s in self.steps if s < step]
            offer = (
                f"go on from step {earlier[-1]}" if earlier else "start again: there is no other"
            )
            raise DamagedCheckpoint(
                f"the checkpoint {self.directory / str(step)} is damaged, and nothing was changed. "
                f"Move it away to {offer}. ({textwrap.shorten(str(error), 200)})"
            ) from error


def system_error(error: BaseException) -> OSError | None:
    """The OSError that an error is, came from, or tells of in TensorStore's words; or None."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    if found is not None:
        return found
    code, file = (
        re.search(part, str(error)) for part in (r"os_error_code='(\d+)'", 'writing: "([^"]+)"')
    )
    if code is None:
        return None
    return OSError(int(code[1]), os.strerror(int(code[1])), file and file[1])


@functools.cache
def _report_once() -> None:
    """What Orbax raises, each of its threads and tasks reports as well, at length: no more."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(lambda record: not _raised(record.exc_info))
    before = sys.unraisablehook

    def unraisable(found: Any) -> None:
        if not _raised((found.exc_type, found.exc_value, found.exc_traceback)):
            before(found)

    sys.unraisablehook = unraisable


def _raised(found: Any) -> bool:
    """Whether an error is one that Orbax raises, or what its unfinished tasks make of that."""
    if not found or found[1] is None:
        return False
    _, error, frames = found
    by_orbax = any("orbax" in frame.filename for frame in traceback.extract_tb(frames))
    return by_orbax or re.search("os_error_code=|Event loop is closed", str(error)) is not None


@dataclasses.dataclass
class _Stay:
    # Orbax asks which checkpoints stay, after each save.
    latest: int
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        return [step in steps[-self.latest :] or step == self.best for step in steps]


# ------------------------------------------------------------------------------- finished models
def save_model(directory: str | os.PathLike[str], model: Transformer) -> None:
    """Writes a model's config and weights, each file at once; weights are stored as float32."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: np.asarray(x.astype(jnp.float32)) for name, x in named_arrays(model).items()}
    with replacing(directory / WEIGHTS) as file:
        np.savez(file, **weights)  # pyright: ignore[reportArgumentType]
    with replacing(directory / CONFIG) as file:
        file.write(json.dumps(dataclasses.asdict(model.config), indent=2).encode() + b"\n")


def load_model(directory: str | os.PathLike[str]) -> Transformer:
    """Reads what `save_model` wrote.

    Raises:
        NarError: there is no such model.
        MismatchedCheckpoint: config and weights do not belong together.
        DamagedCheckpoint: a file cannot be read.
    """
    directory = pathlib.Path(directory)
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise NarError(f"{directory} holds no saved model: there is no {name}")
    try:
        config = json.loads((directory / CONFIG).read_text())
        with np.load(directory / WEIGHTS) as file:  # the archive has checksums, and checks them
            weights = {name: jnp.asarray(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedCheckpoint(f"the model in {directory} is damaged ({error})") from error
    known = {field.name for field in dataclasses.fields(TransformerConfig)}
    if unknown := config.keys() - known:
        raise MismatchedCheckpoint(
            f"{directory / CONFIG} sets {sorted(unknown)}: a TransformerConfig has {sorted(known)}"
        )
    settings = TransformerConfig(**config)
    model = jax.eval_shape(lambda: Transformer(settings, key=jax.random.key(0)))
    found = {name: [_kind(x)] for name, x in weights.items()}
    check_arrays(directory / WEIGHTS, found, named_arrays(model))
    return with_arrays(model, weights)
