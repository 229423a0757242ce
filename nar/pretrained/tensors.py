"""The tensors of a directory's safetensors files, one at a time; nothing is ever unpickled."""

import hashlib
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from nar.errors import NarError
from nar.files import read_json

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = "would have to be unpickled, which is not safe"
UNREAD = {
    **dict.fromkeys(("*.bin", "*.pt", "*.pth", "*.ckpt"), PICKLED),
    **dict.fromkeys(("*.gguf", "*.h5", "*.msgpack"), "has a format that is not read"),
    "*.safetensors": "has another name",
    "adapter_model.safetensors": "is an adapter, and must be merged into its model",
}
"""Files that may hold weights and are not read, and why; of several patterns, the last one."""

FLOATS = ("BF16", "F16", "F32", "F64")
METHODS = {
    "qweight": "GPTQ or AWQ",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes",
    "weight_packed": "compressed-tensors",
    "weight_scale_inv": "fp8",
    "weight_scale": "fp8 or int8",
}
"""Who quantized a checkpoint, by the tensors that are found beside its weights."""

BANNING = "final_logits_bias"
"""The one tensor where a token may be given minus infinity."""


class Read(Protocol):
    """Reads a tensor by name, the first of several names that is there."""

    def __call__(self, *names: str) -> np.ndarray: ...


class Tensors:
    """Tensors by name, in one file, or in several with an index.

    As in transformers, a name is found with and without the prefix of its base class: `prefix` is
    missing where only that class was saved, and is once too often where more was.

    Args:
        directory: of the files; `model.safetensors` wins over an index.
        prefix: of the names of a base class, `"model."`.

    Attributes:
        dtypes: of all tensors, by stored name, as safetensors calls them.
        unread: names that nobody has read yet.
        shapes: of the tensors read since it was last cleared, by name.

    Raises:
        NarError: there is no such file, one is truncated or damaged, or a part is missing.
    """

    def __init__(self, directory: pathlib.Path, prefix: str = ""):
        self._directory, self._prefix, self._digest = directory, prefix, hashlib.sha256()
        self._files: dict[str, pathlib.Path] = {}
        self._tied: dict[str, str] = {}
        self.dtypes: dict[str, str] = {}
        index = _read_index(directory)
        for part in [WHOLE] if index is None else sorted({*index.values()}):
            path = directory / part
            if not path.is_file():
                raise NarError(f"{path} is missing: {INDEX} names it")
            with _open(path) as file:
                names = [n for n in file.keys() if index is None or index.get(n, part) == part]  # noqa: SIM118
                self.dtypes |= {name: file.get_slice(name).get_dtype() for name in names}
            self._files |= dict.fromkeys(names, path)
        if index is not None and (lost := sorted(index.keys() - self._files.keys())):
            raise NarError(f"{directory} lacks tensors that {INDEX} names: {listed(lost)}")
        self.unread, self.shapes = sorted(self._files), {}

    @property
    def fingerprint(self) -> str:
        """A hash of what was read: the same in one file and in several."""
        return self._digest.hexdigest()

    def find(self, *names: str) -> str | None:
        """The stored name of a tensor, of several names the first one that is there."""
        for name in names:
            if name in self._tied:
                return self._tied[name]
            for stored in (name, name.removeprefix(self._prefix), self._prefix + name):
                if stored in self._files:
                    return stored
        return None

    def tie(self, *names: str) -> None:
        """Makes tensors that are equal one: from now on, the first of them is found for all.

        It is found for those that are not there, too. Others keep their own numbers, whatever the
        config says: so does transformers.
        """
        own = {name: self.find(name) for name in names}
        there = [stored for stored in own.values() if stored is not None]
        for name, stored in own.items():
            if there:
                same = (t for t in there if stored is None or self.same(t, stored))
                self._tied[name] = next(same)

    def same(self, one: str, other: str) -> bool:
        """Whether two stored tensors hold the same numbers; neither counts as read."""
        return one == other or np.array_equal(self._load(one), self._load(other))

    def near(self, name: str, numbers: np.ndarray) -> bool:
        """Whether a stored tensor holds these numbers, rounded; it does not count as read."""
        found = self._load(name).astype(np.float32, copy=False)
        return found.shape == numbers.shape and np.allclose(found, numbers, atol=1e-2)

    def read(self, *names: str) -> np.ndarray:
        """A tensor in float32; of several names, the first one that is there.

        Raises:
            NarError: there is none, or it holds NaN or infinities.
        """
        name = self.find(*names)
        if name is None:
            raise NarError(f"{self._directory} lacks the tensor {' or '.join(names)}")
        found = self._load(name)
        if name in self.unread:
            self.unread.remove(name)
        self.shapes[name] = found.shape
        self._digest.update(f"{name} {found.dtype}{found.shape}".encode())
        self._digest.update(found.reshape(-1).view(np.uint8).data)
        with np.errstate(over="ignore"):  # it is found below
            found = found.astype(np.float32, copy=False)
        if wrong := _not_finite(found, banning=name.endswith(BANNING)):
            raise NarError(f"{self._directory}: {name} holds {wrong}: no weight may")
        return found

    def _load(self, name: str) -> np.ndarray:
        # Opened anew for each tensor: the pages of a file that stays open count as memory.
        with _open(self._files[name]) as file:
            return file.get_tensor(name)


def check_precision(tensors: Tensors, config: Mapping[str, Any], surplus: tuple[str, ...]) -> None:
    """Raises a NarError that names the method, where weights are quantized.

    Args:
        tensors: of the model.
        config: the fields of `config.json`.
        surplus: ends of the names of tensors that are not read.
    """
    types = tensors.dtypes.items()
    told = [f"{x} is {t}" for x, t in types if t not in FLOATS and not x.endswith(surplus)]
    ends = {name: name.split(".")[-1] for name in tensors.dtypes}
    beside = {name: METHODS[end] for name, end in ends.items() if end in METHODS}
    said = config.get("quantization_config") or {}
    if not (told or beside or said):
        return
    method = said.get("quant_method") or next(iter(beside.values()), "an unknown method")
    raise NarError(
        f"quantized ({method}): {listed(told or [*beside] or ['config.json says so'], 2)}; "
        f"weights must be saved dequantized, as {', '.join(FLOATS)}"
    )


def _not_finite(x: np.ndarray, *, banning: bool) -> str:
    """What a tensor holds instead of numbers, in words."""
    if not x.size:
        return ""
    ends = np.array([x.min(), x.max()])  # unlike isfinite, needs no memory; both are NaN for any
    if np.isnan(ends).any():
        return "NaN"
    infinite = np.isinf(ends) & ~(banning & (ends < 0))
    return "infinities" if infinite.any() else ""


def _read_index(directory: pathlib.Path) -> dict[str, str] | None:
    """The file of each tensor; None: all are in one."""
    if (directory / WHOLE).is_file():
        return None
    if not (directory / INDEX).is_file():
        why = {path.name: why for end, why in UNREAD.items() for path in directory.glob(end)}
        hint = listed([f"{name} {why[name]}" for name in sorted(why)], 3)
        hint = hint and f" ({hint})"
        raise NarError(f"{directory} holds neither {WHOLE} nor {INDEX}{hint}")
    index = read_json(directory / INDEX).get("weight_map")
    if not index or not isinstance(index, dict):
        raise NarError(f"{directory / INDEX} is damaged: it has no weight_map of names to files")
    for name, part in index.items():
        if not isinstance(part, str) or pathlib.Path(part).name != part:
            raise NarError(f"{directory / INDEX} is damaged: {part!r}, of {name}, names no file")
    return index


def _open(path: pathlib.Path):
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise NarError(f"{path} is truncated or damaged: {error}") from error


def listed(names: Collection[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*list(names)[:most], *more])


# ------------------------------------------------------------------------------- joined products
def fuse(groups: int, *parts: np.ndarray) -> np.ndarray:
    """Products joined group by group, as `nar.model.attention` lays them out.

    Args:
        groups: key-value heads.
        *parts: weights or biases whose first axis has that many equal parts.
    """
    split = [part.reshape(groups, -1, *part.shape[1:]) for part in parts]
    joined = np.concatenate(split, axis=1)
    return joined.reshape(-1, *joined.shape[2:])
