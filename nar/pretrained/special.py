"""Special and added tokens: what a vocabulary's files say of them, and where they are in texts."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from nar.errors import NarError
from nar.files import read_json

CONFIG = "tokenizer_config.json"
NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

SENTINEL = re.compile(r"<extra_id_\d+>")
"""T5's: each stands for a gap of the source, and in an output before what fills that gap."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Added:
    """A token that is one id wherever a text spells it out.

    Attributes:
        number: the id.
        lstrip, rstrip: whether blanks before it, or after it, belong to it.
        single_word: whether it must stand alone, not within a word.
        special: whether it says something to the model, and nothing to a reader.
    """

    number: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = False

    def like(self, token: Any) -> "Added":
        """With the flags that a config's token has; a mere string has none."""
        flags = {field.name for field in dataclasses.fields(self)} - {"number"}
        told = token if isinstance(token, dict) else {}
        return dataclasses.replace(self, **{name: bool(told[name]) for name in flags & told.keys()})


def tokenizer_config(directory: pathlib.Path) -> dict[str, Any]:
    """The fields of `tokenizer_config.json`, and of the older `special_tokens_map.json`."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG):
        if (directory / name).is_file():
            found |= read_json(directory / name)
    return found


def spelled(token: Any) -> str:
    """What a token of a config spells: it is a string, or has the field `content`."""
    return token["content"] if isinstance(token, dict) else token


def shown(name: str, token: Any) -> bool:
    """Whether readers see a token: special ones say something to the model, sentinels to all."""
    return not token.special or bool(SENTINEL.fullmatch(name))


def added_tokens(
    directory: pathlib.Path,
    pieces: Mapping[str, int],
    control: Iterable[str],
    *,
    embeddings: int,
    sentinels: int = 0,
) -> dict[str, Added]:
    """The special and added tokens of a vocabulary, by what they spell.

    Their numbers are in `added_tokens.json` and in the config's `added_tokens_decoder`. A special
    token that is only named is a piece, or takes the next free number, as in transformers.

    Args:
        directory: of the model.
        pieces: the number of each piece.
        control: the pieces that no text is split into.
        embeddings: of the model; what has none is no token.
        sentinels: how many of T5's follow the pieces, the last one first, where the config does
            not say it (`extra_ids`), the pieces have none and the embeddings are as many.

    Raises:
        NarError: a file is damaged.
    """
    config, file, found = tokenizer_config(directory), directory / "added_tokens.json", {}
    listed = read_json(file) if file.is_file() else {}
    try:
        for name in control:
            found[name] = Added(number=pieces[name], special=True)
        count = config.get("extra_ids", sentinels) if sentinels else 0
        if len(pieces) + count <= embeddings and not any(map(SENTINEL.search, pieces)):
            for i in range(count):
                found[f"<extra_id_{i}>"] = Added(number=len(pieces) + count - 1 - i, special=True)
        found |= {name: Added(number=int(number)) for name, number in listed.items()}
        for number, token in config.get("added_tokens_decoder", {}).items():
            found[spelled(token)] = Added(number=int(number)).like(token)
        free = max(0, *pieces.values(), *(token.number for token in found.values())) + 1
        named = [config[name] for name in NAMED if config.get(name)]
        for token in [*named, *(config.get("additional_special_tokens") or ())]:
            name = spelled(token)
            known = found.get(name, Added(number=pieces.get(name, free)))
            found[name] = dataclasses.replace(known.like(token), special=True)
            free += known.number == free
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise NarError(f"{directory}: its special tokens are damaged: {error!r}") from error
    return {name: token for name, token in found.items() if 0 <= token.number < embeddings}


class Splitter:
    """Finds added tokens in texts: of those that begin at one place, the longest.

    Args:
        added: by what they spell.
    """

    def __init__(self, added: Mapping[str, Added]):
        self._added = {name: token for name, token in added.items() if name}
        names = sorted(self._added, key=len, reverse=True)
        alone = {name: r"(?<!\w){}(?!\w)" for name in names if self._added[name].single_word}
        each = [alone.get(name, "{}").format(re.escape(name)) for name in names]
        self._pattern = re.compile(f"({'|'.join(each)})") if each else None

    def split(self, text: str) -> list[str | int]:
        """What stands between the added tokens, and their ids; the parts in order, none empty."""
        if self._pattern is None:
            return [text] if text else []
        parts: list[str | int] = list(self._pattern.split(text))
        for i in range(1, len(parts), 2):
            token = self._added[str(parts[i])]
            before, after = str(parts[i - 1]), str(parts[i + 1])
            parts[i - 1] = before.rstrip() if token.lstrip else before
            parts[i + 1] = after.lstrip() if token.rstrip else after
            parts[i] = token.number
        return [part for part in parts if part != ""]
