"""The vocabularies that models come with: SentencePiece files, or a `tokenizer.json`."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nar.core import NO_EOS
from nar.data.text import hash_files
from nar.data.tokenizer import Vocabulary
from nar.errors import NarError
from nar.files import read_json
from nar.model import TransformerConfig


def read_vocabulary(directory: pathlib.Path, kind: str, config: TransformerConfig) -> Vocabulary:
    """The vocabulary of a model's directory.

    Args:
        directory: of the model.
        kind: its `model_type`.
        config: its shape and special tokens.

    Raises:
        NarError: there is none, it is damaged, or it has more pieces than the model embeddings.
    """
    if kind == "marian":
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


def until(rows: Iterable[Iterable[int]], config: TransformerConfig) -> list[list[int]]:
    """Each row up to its first EOS, without negative ids."""
    if hasattr(rows, "__array__"):
        rows = np.asarray(rows)  # once, and not element by element, from a device
    found = []
    for row in rows:
        ids = [int(token) for token in row]
        # The other ends are in prompts only: the model's logits say EOS for all of them.
        end = ids.index(config.eos) if config.eos in ids else len(ids)
        found.append([token for token in ids[:end] if token >= 0])
    return found


def _check_fits(path: pathlib.Path, pieces: int, embeddings: int) -> None:
    """Tables are often larger than their vocabularies, for round numbers; never smaller."""
    if pieces > embeddings:
        raise NarError(
            f"{path} has {pieces} pieces, and the model beside it {embeddings} embeddings: they do "
            "not belong together"
        )


def _ending(config: TransformerConfig, own: int) -> list[int]:
    """What ends a source: the model's EOS, or its vocabulary's `own`, or nothing."""
    eos = own if config.eos == NO_EOS else config.eos
    return [] if eos == NO_EOS else [eos]


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

    def __init__(self, path: pathlib.Path, config: TransformerConfig):
        self._processor, self._config = _sentencepiece(path), config
        self.vocab_size, self.fingerprint = self._processor.vocab_size(), hash_files(path)
        _check_fits(path, self.vocab_size, config.vocab_size)

    def joint(self) -> tuple[bytes, dict[str, int]]:
        """The serialised SentencePiece model, and the number of each of its pieces."""
        count = range(self._processor.vocab_size())
        names = self._processor.id_to_piece(list(count))
        return self._processor.serialized_model_proto(), dict(zip(names, count, strict=True))

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids: EOS last, or BOS first in a prompt."""
        rows, bos = self._processor.encode(list(texts)), self._config.bos
        end = _ending(self._config, self._processor.eos_id())
        return [[bos, *row] if prompt else [*row, *end] for row in rows]

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`: sources and outputs are numbered alike."""
        return self.encode(texts)

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts; ids beyond the pieces are left out."""
        rows = until(rows, self._config)
        return self._processor.decode([[t for t in row if t < self.vocab_size] for row in rows])

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        known = self._processor.id_to_piece
        return [known(int(t)) if 0 <= t < self.vocab_size else f"<{t}>" for t in row]


class MarianVocabulary:
    """Pieces of `source.spm` and `target.spm`, numbered by `vocab.json`.

    Where source and target have tables of their own, `target_vocab.json` numbers the target's.
    """

    def __init__(self, directory: pathlib.Path, config: TransformerConfig):
        files = [directory / name for name in ("source.spm", "target.spm", "vocab.json")]
        self._source, self._target = map(_sentencepiece, files[:2])
        if (own := directory / "target_vocab.json").is_file():
            files.append(own)
        self._ids, written = _numbers(files[2]), _numbers(files[-1])
        self._pieces = {number: piece for piece, number in written.items()}
        _check_fits(
            files[2], max(self._ids.values()) + 1, config.source_vocab_size or config.vocab_size
        )
        self._special = {config.pad, written.get("<unk>")}
        self._config = config
        self.vocab_size, self.fingerprint = max(self._pieces) + 1, hash_files(*files)
        _check_fits(files[-1], self.vocab_size, config.vocab_size)

    def joint(self) -> tuple[bytes, dict[str, int]]:
        """The serialised SentencePiece model of both sides, and the number of each of its pieces.

        Raises:
            NarError: source and target have pieces, or numbers, of their own.
        """
        model = self._source.serialized_model_proto()
        written = {piece: number for number, piece in self._pieces.items()}
        if model != self._target.serialized_model_proto() or written != self._ids:
            raise NarError("source and target have different pieces: they cannot be one vocabulary")
        return model, self._ids

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of source texts, EOS last; a first word such as `>>de<<` is the language."""
        unk, end, rows = self._ids["<unk>"], self._ending(self._ids), []
        for text in texts:
            language, _, rest = text.partition(" ")
            marked = language.startswith(">>") and language.endswith("<<")
            pieces = self._source.encode(rest if marked else text, out_type=str)
            pieces = [language, *pieces] if marked else pieces
            rows.append([*(self._ids.get(piece, unk) for piece in pieces), *end])
        return rows

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of target texts, EOS last."""
        number = {piece: i for i, piece in self._pieces.items()}
        unk, rows = number["<unk>"], self._target.encode(list(texts), out_type=str)
        end = self._ending(number)
        return [[*(number.get(piece, unk) for piece in row), *end] for row in rows]

    def _ending(self, numbers: Mapping[str, int]) -> list[int]:
        return _ending(self._config, numbers.get("</s>", NO_EOS))

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special pieces."""
        known = self._pieces.keys() - self._special
        return [
            self._target.decode([self._pieces[t] for t in row if t in known])
            for row in until(rows, self._config)
        ]

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        return [self._pieces.get(int(t), f"<{t}>") for t in row]

    def source_pieces(self, row: Sequence[int]) -> list[str]:
        """The same of sources."""
        known = {number: piece for piece, number in self._ids.items()}
        return [known.get(int(t), f"<{t}>") for t in row]


def _numbers(path: pathlib.Path) -> dict[str, int]:
    """The number of each piece."""
    numbers = read_json(path)
    if not all(isinstance(number, int) and number >= 0 for number in numbers.values()):
        raise NarError(f"{path} is damaged: pieces have whole numbers, from 0")
    if "<unk>" not in numbers:
        raise NarError(f"{path} has no <unk>: pieces without a number need one")
    return numbers


class FastVocabulary:
    """A `tokenizer.json`, read by the library that made it; special tokens are as it says."""

    def __init__(self, path: pathlib.Path, config: TransformerConfig):
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise NarError(f"{path} is damaged: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._config, self.fingerprint = config, hash_files(path)
        pieces, tokens = (
            max(self._tokenizer.get_vocab(with_added_tokens=added).values(), default=-1) + 1
            for added in (False, True)
        )
        _check_fits(path, pieces, config.vocab_size)
        self.vocab_size = min(tokens, config.vocab_size)  # some are added and never trained

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids with the special tokens that belong to them; never none.

        Raises:
            NarError: a text holds a token that was added and that the model has no embedding for.
        """
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        if unknown := sorted({t for row in rows for t in row if t >= self._config.vocab_size}):
            raise NarError(
                f"a text holds {', '.join(self.pieces(unknown))}, which was added to the "
                f"vocabulary: the model has embeddings of {self._config.vocab_size} tokens only"
            )
        return [row or [self._config.bos] for row in rows]

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts without what begins them, EOS last."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[*encoding.ids, self._config.eos] for encoding in found]

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special tokens."""
        rows = until(rows, self._config)
        return self._tokenizer.decode_batch(rows, skip_special_tokens=True)

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        return [self._tokenizer.id_to_token(int(t)) or f"<{t}>" for t in row]
