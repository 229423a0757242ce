"""The vocabularies that models come with: SentencePiece files, or a `tokenizer.json`."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nar.core import NarError
from nar.data.text import hash_files


class Vocabulary(Protocol):
    """Texts into token ids and back; `nar.data.tokenizer.Tokenizer` is another one.

    Attributes:
        vocab_size: the number of ids.
        fingerprint: changes with the vocabulary.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of sources, or of prompts; at least one each."""
        ...

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids up to its first EOS."""
        ...

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The piece of each id, to look at."""
        ...


def read_vocabulary(directory: pathlib.Path, config: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a model's directory.

    Raises:
        NarError: there is none, or it is damaged.
    """
    if config["model_type"] == "marian":
        return MarianVocabulary(directory, config)
    if (directory / "tokenizer.json").is_file():
        return FastVocabulary(directory / "tokenizer.json", config)
    for name in ("spiece.model", "tokenizer.model"):
        if (directory / name).is_file():
            return SentencePieceVocabulary(directory / name, config)
    raise NarError(
        f"{directory} holds no vocabulary: neither tokenizer.json, nor spiece.model, nor "
        "tokenizer.model"
    )


def until(rows: Iterable[Iterable[int]], eos: Sequence[int]) -> list[list[int]]:
    """Each row up to its first EOS, without negative ids."""
    if hasattr(rows, "__array__"):
        rows = np.asarray(rows)  # once, and not element by element, from a device
    found = []
    for row in rows:
        ids = [int(token) for token in row]
        ends = [ids.index(token) for token in eos if token in ids]
        found.append([token for token in ids[: min(ends, default=len(ids))] if token >= 0])
    return found


def _ends(config: Mapping[str, Any]) -> tuple[int, ...]:
    eos = config["eos_token_id"]
    return tuple(eos) if isinstance(eos, list) else (eos,)


def _sentencepiece(path: pathlib.Path) -> Any:
    import sentencepiece

    if not path.is_file():
        raise NarError(f"{path} is missing: the model's vocabulary is in it")
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError as error:
        raise NarError(f"{path} is damaged: {error}") from error


class SentencePieceVocabulary:
    """A SentencePiece model whose ids are the model's own (T5, Llama 2)."""

    def __init__(self, path: pathlib.Path, config: Mapping[str, Any]):
        self._processor, self._eos = _sentencepiece(path), _ends(config)
        self._bos, self.fingerprint = config.get("bos_token_id"), hash_files(path)
        self.vocab_size = self._processor.vocab_size()

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids: EOS last, or of a prompt BOS first, where the model has one."""
        rows = self._processor.encode(list(texts))
        if not prompt:
            return [[*row, self._eos[0]] for row in rows]
        bos = self._eos[0] if self._bos is None else self._bos
        return [[bos, *row] for row in rows]

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts; ids beyond the pieces are left out."""
        rows = until(rows, self._eos)
        return self._processor.decode([[t for t in row if t < self.vocab_size] for row in rows])

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        known = self._processor.id_to_piece
        return [known(int(t)) if 0 <= t < self.vocab_size else f"<{t}>" for t in row]


class MarianVocabulary:
    """Pieces of `source.spm` and `target.spm`, numbered by `vocab.json`."""

    def __init__(self, directory: pathlib.Path, config: Mapping[str, Any]):
        files = [directory / name for name in ("source.spm", "target.spm", "vocab.json")]
        self._source, self._target = map(_sentencepiece, files[:2])
        try:
            self._ids: dict[str, int] = json.loads(files[2].read_text())
        except (OSError, ValueError) as error:
            raise NarError(f"{files[2]} is missing or damaged: {error}") from error
        if "<unk>" not in self._ids:
            raise NarError(f"{files[2]} has no <unk>: pieces without a number need one")
        self._pieces = {number: piece for piece, number in self._ids.items()}
        self._eos, self._pad = _ends(config), config["pad_token_id"]
        self.vocab_size, self.fingerprint = max(self._pieces) + 1, hash_files(*files)

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of source texts, EOS last; a first word such as `>>de<<` is the language."""
        unk, rows = self._ids["<unk>"], []
        for text in texts:
            language, _, rest = text.partition(" ")
            marked = language.startswith(">>") and language.endswith("<<")
            pieces = self._source.encode(rest if marked else text, out_type=str)
            pieces = [language, *pieces] if marked else pieces
            rows.append([*(self._ids.get(piece, unk) for piece in pieces), self._eos[0]])
        return rows

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special pieces."""
        special = {self._pad, self._ids["<unk>"], *self._eos}
        return [
            self._target.decode([self._pieces[t] for t in row if t not in special])
            for row in until(rows, self._eos)
        ]

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces."""
        return [self._pieces.get(int(t), f"<{t}>") for t in row]


class FastVocabulary:
    """A `tokenizer.json`, read by the library that made it; special tokens are as it says."""

    def __init__(self, path: pathlib.Path, config: Mapping[str, Any]):
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise NarError(f"{path} is damaged: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._eos, self._bos = _ends(config), config.get("bos_token_id")
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.fingerprint = hash_files(path)

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids with the special tokens that belong to them; never none."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        empty = [self._eos[0] if self._bos is None else self._bos]
        return [row or empty for row in rows]

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special tokens."""
        return self._tokenizer.decode_batch(until(rows, self._eos), skip_special_tokens=True)

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces."""
        return [self._tokenizer.id_to_token(int(t)) or f"<{t}>" for t in row]
