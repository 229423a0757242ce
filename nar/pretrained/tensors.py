"""The tensors of a directory's safetensors files, one at a time; nothing is ever unpickled."""

import json
import pathlib
from collections.abc import Collection
from typing import Protocol

import numpy as np

from nar.core import NarError

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class Read(Protocol):
    """Reads a tensor by name, the first of several names that is there."""

    def __call__(self, *names: str) -> np.ndarray: ...


class Tensors:
    """Tensors by name, in one file, or in several with an index.

    Raises:
        NarError: there is no such file, one is truncated or damaged, or a part is missing.
    """

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._files: dict[str, pathlib.Path] = {}
        if (directory / INDEX).is_file():
            try:
                index = json.loads((directory / INDEX).read_text())["weight_map"]
            except (ValueError, KeyError, TypeError) as error:
                raise NarError(f"{directory / INDEX} is damaged: {error!r}") from error
            parts = sorted({*index.values()})
        elif (directory / WHOLE).is_file():
            index, parts = None, [WHOLE]
        else:
            other = sorted(p.name for p in directory.glob("*.bin"))
            hint = f" ({', '.join(other)} would have to be unpickled, which is not safe)"
            raise NarError(f"{directory} holds neither {WHOLE} nor {INDEX}{hint if other else ''}")
        for part in parts:
            path = directory / part
            if not path.is_file():
                raise NarError(f"{path} is missing: {INDEX} names it")
            with _open(path) as file:
                self._files |= dict.fromkeys(file.keys(), path)
        if index is not None and (lost := sorted(index.keys() - self._files.keys())):
            raise NarError(f"{directory} lacks tensors that {INDEX} names: {', '.join(lost)}")
        self.unread = sorted(self._files)

    @property
    def names(self) -> Collection[str]:
        """What there is."""
        return self._files.keys()

    def read(self, *names: str) -> np.ndarray:
        """A tensor in float32; of several names, the first one that is there.

        Raises:
            NarError: there is none.
        """
        for name in names:
            if name in self._files:
                if name in self.unread:
                    self.unread.remove(name)
                # Opened anew for each tensor: the pages of a file that stays open count as memory.
                with _open(self._files[name]) as file:
                    return np.asarray(file.get_tensor(name)).astype(np.float32)
        raise NarError(f"{self._directory} lacks the tensor {' or '.join(names)}")


def _open(path: pathlib.Path):
    from safetensors import SafetensorError, safe_open

    try:
        # The reader for NumPy does not know bfloat16.
        return safe_open(path, framework="flax")
    except (SafetensorError, OSError) as error:
        raise NarError(f"{path} is truncated or damaged: {error}") from error


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
