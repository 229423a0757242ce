"""The vocabularies that models come with: SentencePiece files, or a `tokenizer.json`."""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nar.core import NO_EOS
from nar.data.text import hash_files
from nar.data.tokenizer import Vocabulary
from nar.errors import NarError
from nar.files import read_json
from nar.model import TransformerConfig
from nar.pretrained.special import Added, Splitter, added_tokens, shown, tokenizer_config

SENTINELS = {"t5": 100, "mt5": 100}
"""How many sentinels a layout has where its files do not say it."""


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
            return SentencePieceVocabulary(directory / name, config, SENTINELS.get(kind, 0))
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


def _without_prefix(processor: Any) -> Any:
    """The same SentencePiece model for what is not the beginning of a text."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2  # made while it is imported: no type knows its names
    model = proto.ModelProto.FromString(processor.serialized_model_proto())
    model.normalizer_spec.add_dummy_prefix = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def _encode(
    splitter: Splitter,
    texts: Sequence[str],
    first: Callable[[list[str]], list[list[int]]],
    rest: Callable[[list[str]], list[list[int]]],
) -> list[list[int]]:
    """The ids of texts, one for each added token.

    Args:
        splitter: finds them.
        texts: to encode.
        first: encodes what texts begin with.
        rest: encodes what follows an added token.
    """
    parted = [splitter.split(text) for text in texts]
    begin = iter(first([parts[0] for parts in parted if parts and isinstance(parts[0], str)]))
    later = iter(rest([part for parts in parted for part in parts[1:] if isinstance(part, str)]))

    def ids(place: int, part: str | int) -> list[int]:
        return [part] if isinstance(part, int) else next(later if place else begin)

    return [[*itertools.chain(*itertools.starmap(ids, enumerate(parts)))] for parts in parted]


def _fingerprint(added: Mapping[str, Added], known: Iterable[str], *files: pathlib.Path) -> str:
    """Changes with the files of a vocabulary, and with what was added to their special pieces."""
    more, found = {name: added[name] for name in added.keys() - set(known)}, hash_files(*files)
    return hashlib.sha256(f"{found}{sorted(more.items())}".encode()).hexdigest() if more else found


class SentencePieceVocabulary:
    """A SentencePiece model whose ids are the model's own (T5, Llama 2), and its added tokens.

    Args:
        path: of the SentencePiece model; files beside it say what was added.
        config: of the model.
        sentinels: how many of T5's there are where the files do not say it.
    """

    def __init__(self, path: pathlib.Path, config: TransformerConfig, sentinels: int = 0):
        self._processor, self._config = _sentencepiece(path), config
        _check_fits(path, self._processor.vocab_size(), config.vocab_size)
        (_, pieces), files = self.joint(), tokenizer_config(path.parent)
        silent = self._processor.is_control, self._processor.is_unknown
        control = [name for name, i in pieces.items() if any(is_so(i) for is_so in silent)]
        added = added_tokens(
            path.parent, pieces, control, embeddings=config.vocab_size, sentinels=sentinels
        )
        self.special = {name: token.number for name, token in added.items() if token.special}
        self._splitter, self._within = Splitter(added), self._processor
        if str(files.get("tokenizer_class")).startswith("Llama") and not files.get("legacy"):
            self._within = _without_prefix(self._processor)
        self._begin = [config.bos] if files.get("add_bos_token", True) else []
        self._numbers = pieces | {name: token.number for name, token in added.items()}
        self._pieces = {number: piece for piece, number in self._numbers.items()}
        self._shown = {token.number for name, token in added.items() if shown(name, token)}
        hidden = {token.number for token in added.values()} - self._shown
        self._hidden = hidden - {self._processor.unk_id()}  # a reader should see it
        self.vocab_size = max(self._pieces) + 1
        self.fingerprint = _fingerprint(added, control, path)

    def joint(self) -> tuple[bytes, dict[str, int]]:
        """The serialised SentencePiece model, and the number of each of its pieces."""
        count = range(self._processor.vocab_size())
        names = self._processor.id_to_piece(list(count))
        return self._processor.serialized_model_proto(), dict(zip(names, count, strict=True))

    def number(self, piece: str) -> int | None:
        """The id of a piece or of an added token."""
        return self._numbers.get(piece)

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids: EOS last, or BOS first in a prompt; never none."""
        rows, bos = self.encode_whole(texts), self._config.bos
        end = _ending(self._config, self._processor.eos_id())
        return [([*self._begin, *row] or [bos]) if prompt else [*row, *end] for row in rows]

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of what the texts spell out."""
        return _encode(self._splitter, texts, self._processor.encode, self._within.encode)

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`: sources and outputs are numbered alike."""
        return self.encode(texts)

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts; ids beyond the pieces are left out, and special tokens but for sentinels."""
        parted = [self._parts(row) for row in until(rows, self._config)]
        runs = [run for parts in parted for run in parts if isinstance(run, list)]
        texts, found = iter(self._processor.decode(runs) if runs else ()), []
        for parts in parted:
            text = ""
            for part in parts:
                if isinstance(part, list):  # of which a blank is left out at the beginning
                    text += " " * bool(text and self._pieces[part[0]].startswith("▁")) + next(texts)
                else:
                    text += part
            found.append(text)
        return found

    def _parts(self, row: list[int]) -> list[str | list[int]]:
        """The added tokens that are shown, and runs of pieces between them."""
        count = self._processor.vocab_size()
        parts: list[str | list[int]] = []
        row = [t for t in row if t in self._shown or (t < count and t not in self._hidden)]
        for is_shown, run in itertools.groupby(row, self._shown.__contains__):
            part = [*run]
            parts.append("".join(self._pieces[token] for token in part) if is_shown else part)
        return parts

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        return [self._pieces.get(int(t), f"<{t}>") for t in row]


LANGUAGE = re.compile(">>.*?<<")
"""Of opus-mt: which language to write."""


class MarianVocabulary:
    """Pieces of `source.spm` and `target.spm`, numbered by `vocab.json`.

    Where source and target have tables of their own, `target_vocab.json` numbers the target's.
    """

    def __init__(self, directory: pathlib.Path, config: TransformerConfig):
        files = [directory / name for name in ("source.spm", "target.spm", "vocab.json")]
        self._source, self._target = map(_sentencepiece, files[:2])
        if (own := directory / "target_vocab.json").is_file():
            files.append(own)
        self._ids, self._written = _numbers(files[2]), _numbers(files[-1])
        self._pieces = {number: piece for piece, number in self._written.items()}
        _check_fits(
            files[2], max(self._ids.values()) + 1, config.source_vocab_size or config.vocab_size
        )
        self.vocab_size = max(self._pieces) + 1
        _check_fits(files[-1], self.vocab_size, config.vocab_size)
        control = [name for name in ("</s>", "<unk>", "<pad>") if name in self._ids]
        embeddings = config.source_vocab_size or config.vocab_size
        added = added_tokens(directory, self._ids, control, embeddings=embeddings)
        target = {
            name: dataclasses.replace(token, number=self._written[name])
            for name, token in added.items()
            if name in self._written
        }
        self._splitter, self._target_splitter = Splitter(added), Splitter(target)
        self._config = config
        self.special = {name: token.number for name, token in target.items() if token.special}
        self._hidden = {config.pad, *self.special.values()}
        self.fingerprint = _fingerprint(added, control, *files)

    def joint(self) -> tuple[bytes, dict[str, int]]:
        """The serialised SentencePiece model of both sides, and the number of each of its pieces.

        Raises:
            NarError: source and target have pieces, or numbers, of their own.
        """
        model = self._source.serialized_model_proto()
        if model != self._target.serialized_model_proto() or self._written != self._ids:
            raise NarError("source and target have different pieces: they cannot be one vocabulary")
        return model, self._ids

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of source texts, EOS last; `>>deu<<` at the beginning is the language."""
        end = self._ending(self._ids)
        return [[*row, *end] for row in self.encode_whole(texts)]

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of what source texts spell out."""
        encode = functools.partial(_numbered, self._source, self._ids)
        return _encode(self._splitter, texts, encode, encode)

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of target texts, EOS last."""
        encode = functools.partial(_numbered, self._target, self._written)
        rows, end = (
            _encode(self._target_splitter, texts, encode, encode),
            self._ending(self._written),
        )
        return [[*row, *end] for row in rows]

    def _ending(self, numbers: Mapping[str, int]) -> list[int]:
        return _ending(self._config, numbers.get("</s>", NO_EOS))

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special pieces."""
        known = self._pieces.keys() - self._hidden
        return [
            self._target.decode([self._pieces[t] for t in row if t in known])
            for row in until(rows, self._config)
        ]

    def number(self, piece: str) -> int | None:
        """The id of a piece of the target."""
        return self._written.get(piece)

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        return [self._pieces.get(int(t), f"<{t}>") for t in row]

    def source_pieces(self, row: Sequence[int]) -> list[str]:
        """The same of sources."""
        known = {number: piece for piece, number in self._ids.items()}
        return [known.get(int(t), f"<{t}>") for t in row]


def _numbered(processor: Any, numbers: Mapping[str, int], texts: Sequence[str]) -> list[list[int]]:
    """The numbers of the pieces of texts that may begin with a language; unknown ones have none."""
    marks = [mark[0] if (mark := LANGUAGE.match(text)) else "" for text in texts]
    rests = [text[len(mark) :] for mark, text in zip(marks, texts, strict=True)]
    rows, unk = processor.encode(rests, out_type=str), numbers["<unk>"]
    return [
        [numbers.get(piece, unk) for piece in ([mark] * bool(mark) + row)]
        for mark, row in zip(marks, rows, strict=True)
    ]


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
        added = self._tokenizer.get_added_tokens_decoder()
        self.special = {token.content: n for n, token in added.items() if token.special}
        self._hidden = {n for n, token in added.items() if not shown(token.content, token)}

    def number(self, piece: str) -> int | None:
        """The id of a piece or of an added token."""
        return self._tokenizer.token_to_id(piece)

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

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of what the texts spell out."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts without what begins them, EOS last."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[*encoding.ids, *_ending(self._config, NO_EOS)] for encoding in found]

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The texts, without special tokens but for sentinels."""
        rows = until(rows, self._config)
        rows = [[token for token in row if token not in self._hidden] for row in rows]
        return self._tokenizer.decode_batch(rows, skip_special_tokens=False)

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The pieces; `<n>` beyond them."""
        return [self._tokenizer.id_to_token(int(t)) or f"<{t}>" for t in row]
