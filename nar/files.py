"""Files that are written whole or not at all, and read or refused by name; lines of text."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from nar.errors import NarError


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file in an OSError that does not: that of a write, as when a disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write; what was at `path` is replaced by it at the end, if nothing went wrong.

    A reader finds the old file or the new one, never half of one. An OSError names the file.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with naming(partial), open(partial, "wb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8."""
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NarError: the file is missing, or holds no JSON object.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise NarError(f"{path} is missing")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise NarError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise NarError(f"{path} is damaged: it holds no JSON object")
    return found


def decode_line(line: bytes | bytearray, number: int) -> str:
    """A line of text without its end; the first one, of number 0, without a byte order mark.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    encoding = "utf-8" if number else "utf-8-sig"
    return line.removesuffix(b"\n").removesuffix(b"\r").decode(encoding)
