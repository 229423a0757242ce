"""The tensors of a directory's safetensors files, one at a time; nothing is ever unpickled."""

import hashlib
import pathlib
from collections.abc import Collection
from typing import Protocol

import numpy as np

from nar.errors import NarError
from nar.files import read_json

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class Read(Protocol):
    """Reads a tensor by name, the first of several names that is there."""

    def __call__(self, *names: str) -> np.ndarray: ...


class Tensors:
    """Tensors by name, in one file, or in several with an index.

    Attributes:
        unread: names that nobody has read yet.
        shapes: of the tensors read since it was last cleared, by name.

    Raises:
        NarError: there is no such file, one is truncated or damaged, or a part is missing.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory, self._digest = directory, hashlib.sha256()
        self._files: dict[str, pathlib.Path] = {}
        index = _read_index(directory)
        for part in [WHOLE] if index is None else sorted({*index.values()}):
            path = directory / part
            if not path.is_file():
                raise NarError(f"{path} is missing: {INDEX} names it")
            with _open(path) as file:
                names = [n for n in file.keys() if index is None or index.get(n, part) == part]  # noqa: SIM118
            self._files |= dict.fromkeys(names, path)
        if index is not None and (lost := sorted(index.keys() - self._files.keys())):
            raise NarError(f"{directory} lacks tensors that {INDEX} names: {listed(lost)}")
        self.unread, self.shapes = sorted(self._files), {}

    @property
    def names(self) -> Collection[str]:
        """What there is."""
        return self._files.keys()

    @property
    def fingerprint(self) -> str:
        """A hash of what was read: the same in one file and in several."""
        return self._digest.hexdigest()

    def read(self, *names: str) -> np.ndarray:
        """A tensor in float32; of several names, the first one that is there.

        Raises:
            NarError: there is none.
        """
        for name in names:
            if name in self._files:
                # Opened anew for each tensor: the pages of a file that stays open count as memory.
                with _open(self._files[name]) as file:
                    found = file.get_tensor(name)
                if name in self.unread:
                    self.unread.remove(name)
                self.shapes[name] = found.shape
                self._digest.update(f"{name} {found.dtype}{found.shape}".encode())
                self._digest.update(found.reshape(-1).view(np.uint8).data)
                return found.astype(np.float32, copy=False)
        raise NarError(f"{self._directory} lacks the tensor {' or '.join(names)}")


def _read_index(directory: pathlib.Path) -> dict[str, str] | None:
    """The file of each tensor; None: all are in one."""
    if not (directory / INDEX).is_file():
        if (directory / WHOLE).is_file():
            return None
        pickled = sorted(p.name for kind in PICKLED for p in directory.glob(kind))
        hint = f" ({', '.join(pickled)} would have to be unpickled, which is not safe)"
        raise NarError(f"{directory} holds neither {WHOLE} nor {INDEX}{hint if pickled else ''}")
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
