"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write; what was at `path` is replaced by it at the end, if nothing went wrong.

    A reader finds the old file or the new one, never half of one.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        yield file
    partial.replace(path)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())
