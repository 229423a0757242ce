"""One vocabulary for source and target, trained once and stored beside the model.

SentencePiece (Kudo and Richardson, 2018, https://arxiv.org/abs/1808.06226) with our special ids.
"""

import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np

from nar.errors import NarError, at_least
from nar.files import replacing

PAD, UNK, BOS, EOS, MASK, BLANK, SEP = range(7)
"""Special ids. UNK: a symbol without a piece; MASK: a hidden place; BLANK: of CTC; SEP: free."""

FILE = "tokenizer.model"
"""The name of a tokenizer's only file."""

Pieces = Literal["unigram", "bpe", "words"]

_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<blank>", "<sep>")


class Vocabulary(Protocol):
    """Texts into token ids and back: a `Tokenizer`, or what an imported model brought along.

    Attributes:
        vocab_size: the number of ids.
        fingerprint: changes with the vocabulary.
        special: the tokens that say something to the model and nothing to a reader, and their ids.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def special(self) -> Mapping[str, int]: ...

    def number(self, piece: str) -> int | None:
        """The id of a piece that outputs may hold, by its name; None: there is none."""
        ...

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of sources, or of prompts; at least one each."""
        ...

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of what texts spell out, and no more."""
        ...

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts as the model would write them."""
        ...

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids up to its first EOS."""
        ...

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The piece of each id, to look at."""
        ...


def shared(ours: Vocabulary, theirs: Vocabulary) -> int:
    """How many ids stand for the same pieces in two vocabularies: all those of the smaller one.

    Sources may be numbered in another way: then a vocabulary has `source_pieces` too.

    Raises:
        NarError: an id stands for two pieces.
    """
    ids = range(min(ours.vocab_size, theirs.vocab_size))
    for side in ("source_pieces", "pieces"):
        one, other = (getattr(x, side, x.pieces)(ids) for x in (ours, theirs))
        if differing := [i for i in ids if one[i] != other[i]]:
            i = differing[0]
            raise NarError(f"id {i} stands for {one[i]!r} in one and for {other[i]!r} in the other")
    return len(ids)


class Tokenizer:
    """Turns texts into lists of token ids that end in EOS, and back.

    Args:
        model: a serialised SentencePiece model whose first seven pieces are our special ones.

    Raises:
        NarError: it is damaged, or its special ids are not ours.
    """

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            first = tuple(self._processor.id_to_piece(list(range(len(_SPECIAL)))))
        except (RuntimeError, IndexError) as error:
            raise NarError(f"not a SentencePiece model, or a damaged one: {error}") from error
        if first != _SPECIAL:
            raise NarError(f"the first pieces are {first}: a tokenizer of ours has {_SPECIAL}")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int = 8000,
        pieces: Pieces = "unigram",
        character_coverage: float = 1.0,
        byte_fallback: bool = False,
    ) -> Self:
        """Learns the pieces; the same texts in the same order give the same tokenizer.

        `Tokenizer.train(nar.data.text.texts(pairs))` learns a joint vocabulary. The texts are
        streamed; at most a million of them, drawn evenly, are kept to learn from.

        Args:
            texts: sentences, without line ends.
            vocab_size: the most pieces, special ones included; fewer when the texts have no more.
            pieces: "unigram" (Kudo, 2018) or "bpe" (Sennrich et al., 2016), with which a text of
                known characters survives encoding and decoding, spaces included; or "words":
                symbols separated by spaces, such as letters and phones.
            character_coverage: the share of the characters that get a piece; rare ones become UNK.
            byte_fallback: spells characters without a piece in bytes (256 more pieces), so that any
                text survives.

        Raises:
            NarError: there is no text, or `vocab_size` has no room for the special pieces and the
                characters.
        """
        import sentencepiece

        at_least("vocab_size", vocab_size, len(_SPECIAL) + 1)
        if pieces not in get_args(Pieces):
            raise NarError(f"pieces={pieces!r}: it must be one of {', '.join(get_args(Pieces))}")
        if not 0 < character_coverage <= 1:
            raise NarError(f"character_coverage={character_coverage}: it must be in (0, 1]")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=model,
                model_type="word" if pieces == "words" else pieces,
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=character_coverage,
                byte_fallback=byte_fallback,
                normalization_rule_name="identity",
                remove_extra_whitespaces=pieces == "words",
                input_sentence_size=1_000_000,
                max_sentence_length=2**30,  # bytes; longer ones would be left out without a word
                num_threads=16,  # the sums of unigram's EM depend on it: never the machine's count
                minloglevel=2,
                pad_id=PAD,
                unk_id=UNK,
                bos_id=BOS,
                eos_id=EOS,
                control_symbols=list(_SPECIAL[MASK:]),
            )
        except RuntimeError as error:
            raise NarError(f"cannot learn {vocab_size} {pieces} pieces: {error}") from error
        return cls(model.getvalue())

    @classmethod
    def renumbered(cls, model: bytes) -> Self:
        """Another SentencePiece model's pieces, in their order, behind our special ones.

        Texts are split as that model splits them.

        Args:
            model: serialised; its own control pieces are left out.
        """
        from sentencepiece import sentencepiece_model_pb2

        proto: Any = sentencepiece_model_pb2  # made while it is imported: no type knows its names
        found = proto.ModelProto.FromString(model)
        kinds = proto.ModelProto.SentencePiece
        normal = [
            piece for piece in found.pieces if piece.type not in (kinds.CONTROL, kinds.UNKNOWN)
        ]
        del found.pieces[:]
        for number, name in enumerate(_SPECIAL):
            kind = kinds.UNKNOWN if number == UNK else kinds.CONTROL
            found.pieces.add(piece=name, score=0, type=kind)
        found.pieces.extend(normal)
        names = {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS}
        for name, number in names.items():
            setattr(found.trainer_spec, f"{name}_id", number)
            setattr(found.trainer_spec, f"{name}_piece", _SPECIAL[number])
        found.trainer_spec.control_symbols[:] = _SPECIAL[MASK:]
        found.trainer_spec.vocab_size = len(found.pieces)
        return cls(found.SerializeToString(deterministic=True))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Reads the tokenizer that `save` wrote.

        Raises:
            NarError: there is none, or it is damaged.
        """
        path = pathlib.Path(directory) / FILE
        if not path.is_file():
            raise NarError(f"{path} is missing: a model's directory holds its tokenizer")
        try:
            return cls(path.read_bytes())
        except NarError as error:
            raise NarError(f"{path}: {error}") from error

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes one file, `tokenizer.model`, whole or not at all."""
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / FILE) as file:
            file.write(self.model)

    @property
    def vocab_size(self) -> int:
        """The number of ids, special ones included."""
        return self._processor.vocab_size()

    @property
    def fingerprint(self) -> str:
        """A hash of the model."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def special(self) -> dict[str, int]:
        """Our special pieces: texts do not spell them, a stop string may name them."""
        return {piece: number for number, piece in enumerate(_SPECIAL)}

    def number(self, piece: str) -> int | None:
        """The id of a piece."""
        found = self._processor.piece_to_id(piece)
        return found if self._processor.id_to_piece(found) == piece else None

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, neither EOS nor BOS around them."""
        return self._processor.encode(list(texts))

    def encode(self, texts: Sequence[str], *, prompt: bool = False) -> list[list[int]]:
        """The ids of each text, EOS last; of a prompt, BOS first. An empty text has one token."""
        return self._processor.encode(list(texts), add_bos=prompt, add_eos=not prompt)

    def encode_outputs(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, EOS last."""
        return self.encode(texts)

    def decode(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """The text of each row of ids up to its first EOS; rows are lists, or an array.

        Special ids and those of no piece are left out, but UNK is shown (as ⁇): a reader should see
        it.
        """
        if hasattr(rows, "__array__"):
            rows = np.asarray(rows)  # once, and not element by element, from a device
        return self._processor.decode([_readable(row, self.vocab_size) for row in rows])

    def pieces(self, row: Sequence[int]) -> list[str]:
        """The piece of each id, special ones included, to look at; `<n>` beyond them."""
        known = self._processor.id_to_piece
        return [known(int(t)) if 0 <= t < self.vocab_size else f"<{t}>" for t in row]


def _readable(row: Iterable[int], vocab_size: int) -> list[int]:
    tokens = [int(token) for token in row]
    if EOS in tokens:
        tokens = tokens[: tokens.index(EOS)]
    return [token for token in tokens if token == UNK or SEP < token < vocab_size]
