"""A pretrained model as one of ours: its pieces are numbered as our tokenizers number theirs.

Then it can be trained on, begin a student, teach, and be saved, like every other model.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np

from nar.core import NO_EOS
from nar.data.tokenizer import BLANK, BOS, EOS, MASK, PAD, SEP, Tokenizer
from nar.errors import NarError
from nar.model import Transformer
from nar.pretrained.layout import load_pretrained
from nar.pretrained.vocabulary import MarianVocabulary, SentencePieceVocabulary
from nar.training.checkpoint import named_arrays, with_arrays

NEW = (MASK, BLANK, SEP)
OF_PIECES = {"embedding/table", "source_embedding/table", "output/table", "logits_bias"}
"""The arrays that have a row a piece."""


def adopt(directory: str | os.PathLike[str]) -> tuple[Transformer, Tokenizer]:
    """Reads a model in Hugging Face's layout and renumbers its vocabulary.

    It writes what `load_pretrained`'s writes. MASK, BLANK and SEP are new, and zeros until they are
    trained; embeddings that no piece belongs to are left out.

    Args:
        directory: of the model, as for `load_pretrained`.

    Raises:
        NarError: as `load_pretrained`; or source and target have different pieces, or the pieces
            are not SentencePiece's, or none of them ends an output.
    """
    translator = load_pretrained(directory)
    model, vocabulary = translator.model, translator.tokenizer
    if not isinstance(vocabulary, MarianVocabulary | SentencePieceVocabulary):
        raise NarError(
            f"{directory}: the vocabulary is a tokenizer.json: only SentencePiece's can be "
            "renumbered"
        )
    pieces, numbers = vocabulary.joint()
    tokenizer = Tokenizer.renumbered(pieces)
    names = tokenizer.pieces(range(tokenizer.vocab_size))
    rows = np.array([numbers.get(name, -1) for name in names])
    config = model.config
    if config.eos == NO_EOS:
        raise NarError(f"{directory} has no token that ends an output: ours need one")
    rows[[PAD, BOS, EOS, *NEW]] = config.pad, config.bos, config.eos, -1, -1, -1
    if lost := [names[i] for i in np.flatnonzero(rows < 0) if i not in NEW]:
        raise NarError(f"{directory}: {len(lost)} pieces have no number, such as {lost[:5]}")
    ours = {int(row): i for i, row in reversed(list(enumerate(rows)))}
    also_eos, banned = (
        tuple(ours[token] for token in tokens if token in ours)
        for tokens in (config.also_eos, config.banned)
    )
    config = dataclasses.replace(
        config,
        vocab_size=len(rows),
        source_vocab_size=config.source_vocab_size and len(rows),
        pad=PAD,
        bos=BOS,
        eos=EOS,
        mask=MASK,
        blank=BLANK,
        also_eos=also_eos,
        banned=tuple(sorted({PAD, BOS, *NEW, *banned} - {EOS})),
    )
    shape = jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0)))
    arrays = {name: np.asarray(x) for name, x in named_arrays(model).items()}
    for name in arrays.keys() & OF_PIECES:
        old = arrays[name]
        arrays[name] = np.where((rows < 0).reshape(-1, *[1] * (old.ndim - 1)), 0, old[rows])
    return with_arrays(shape, {name: jnp.asarray(x) for name, x in arrays.items()}), tokenizer
