"""Text as it is accepted: what is certain of each row, and where its stop strings end it."""

import types
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nar.core import Decoder, Source, failed_rows
from nar.data.batching import evaluation_batches
from nar.drivers import decode, stream
from nar.errors import NarError, warn_of_nan
from nar.ops import numbered_keys

if TYPE_CHECKING:
    from nar.translator import Translator

HALF = "\ufffd"
"""What stands for bytes that do not make a character yet."""


class Unfolding:
    """A growing text, given away piece by piece; never more than the final text will hold.

    What may become a stop string, or is half of a character, waits. The pieces together do not
    depend on how the text grew, so a stop string may lie across tokens and across steps. Of several
    stop strings the one counts that ends first; of those that end together, the longest.

    Args:
        stops: the text ends before any of these; none of them is empty.
    """

    def __init__(self, stops: Sequence[str]):
        self._stops, self._given = stops, 0
        self.stopped = False

    def take(self, text: str, *, whole: bool) -> str:
        """The piece that is certain now and was not before.

        Args:
            text: all there is so far; it begins with what it was before.
            whole: nothing will follow.
        """
        if self.stopped:
            return ""
        end = cut = stop_place(text, self._stops)
        self.stopped = end is not None
        if cut is None:
            cut = len(text) if whole else certain(text, self._stops)
        piece = text[self._given : cut]
        self._given = max(cut, self._given)
        return piece


def stop_place(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop string to end in a text begins; None where there is none."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def certain(text: str, stops: Sequence[str]) -> int:
    """How much of a growing text no stop string and no half character can take back."""
    end = len(text.rstrip(HALF))
    longest = max((len(stop) for stop in stops), default=1)
    for start in range(max(end - longest + 1, 0), end):
        if any(stop.startswith(text[start:end]) for stop in stops):
            return start
    return end


def check_stops(stops: Sequence[str]) -> tuple[str, ...]:
    """Stop strings.

    Raises:
        NarError: they are one string and not several, or one is empty.
    """
    if isinstance(stops, str):
        raise NarError(f"stop={stops!r}: it must be a sequence of strings, as ({stops!r},)")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise NarError(f"stop={tuple(stops)!r}: each must be a string that is not empty")
    return tuple(stops)


def unfold(
    translator: "Translator",
    texts: Sequence[str],
    decoder: Decoder,
    *,
    stop: Sequence[str] | Sequence[Sequence[str]] = (),
    limits: Sequence[int] | None = None,
    key: Key[Array, ""] | None = None,
    numbers: Sequence[int] | None = None,
) -> Iterator[list[str]]:
    """Decodes some texts as one batch and gives what is certain of each, step by step.

    Args:
        translator: model and tokenizer.
        texts: blank ones stay empty.
        decoder: how.
        stop: strings that end an output before them; the same for all, or a sequence a text.
        limits: the most tokens to write for each text; by default the decoder's `max_length`.
        key: of random decoders.
        numbers: of the texts, from which and from `key` their random keys follow; by default
            their places.

    Returns:
        An iterator of the new pieces, one a text, some of them empty.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: a text is too long, or a stop string or a limit is none; before anything runs.

    Warns:
        UserWarning: texts, which are named, for which the model's logits were NaN; at the end.
    """
    stops = stops_by_row(stop, len(texts))
    most = [decoder.max_length] * len(texts) if limits is None else limits
    if len(most) != len(texts):
        raise NarError(f"{len(most)} limits for {len(texts)} texts: there must be as many")
    rows = [i for i, text in enumerate(texts) if text.strip()]
    if not rows:
        return iter(())
    sources = translator.fitting(texts, decoder, rows)
    for i in rows:
        if not 1 <= most[i] <= decoder.max_length:
            raise NarError(
                f"limit {most[i]} of text {i + 1}: it must be in 1..{decoder.max_length}"
            )
    longest = [max(sources, key=len)]
    _, padded = next(evaluation_batches(longest, 1, max_length=translator.room(decoder)))
    batch = Source.of(sources, width=padded.tokens.shape[1])  # one of few widths
    batch = batch.replace(limit=jnp.asarray([most[i] for i in rows], jnp.int32))
    decoder.check(translator.model, batch)
    key = jax.random.key(0) if key is None else key
    folded = np.array(rows if numbers is None else [numbers[i] for i in rows])
    keys = numbered_keys(key, folded)
    run = stream if decoder.streams else _at_once
    steps = run(decoder, translator.model, batch, key=keys)

    def pieces() -> Iterator[list[str]]:
        unfolding = [Unfolding(stops[i]) for i in rows]
        state = next(steps, None)
        while state is not None:
            tokens, length, done = map(np.asarray, (state.tokens, state.length, state.done))
            outputs = [tokens[row, : length[row]] for row in range(len(rows))]
            written, new = translator.texts(sources, outputs), [""] * len(texts)
            for row, i in enumerate(rows):
                new[i] = unfolding[row].take(written[row], whole=bool(done[row]))
            failed = [i for i, lost in zip(rows, failed_rows(state), strict=True) if lost]
            yield new
            try:
                state = steps.send(np.array([row.stopped for row in unfolding]))
            except StopIteration:
                warn_of_nan([i if numbers is None else numbers[i] for i in failed])
                return

    return pieces()


def _at_once(decoder: Decoder, model: Any, source: Source, key: Key[Array, " batch"]) -> Any:
    """As `stream`, for a decoder whose outputs are certain at the end alone: one state."""
    output = decode(decoder, model, source, key=key)
    given = {"tokens": output.tokens, "length": output.length, "failed": output.failed}
    yield types.SimpleNamespace(**given, done=np.ones(output.length.shape, bool))


def stops_by_row(
    stop: Sequence[str] | Sequence[Sequence[str]], count: int
) -> list[tuple[str, ...]]:
    """The stop strings of each of `count` texts.

    Raises:
        NarError: there are not as many sequences as texts, or a stop string is none.
    """
    if isinstance(stop, str):
        raise NarError(f"stop={stop!r}: it must be a sequence of strings, as ({stop!r},)")
    shared = [one for one in stop if isinstance(one, str)]
    if len(shared) == len(stop):
        return [check_stops(shared)] * count
    if len(stop) != count:
        raise NarError(f"stop has {len(stop)} sequences for {count} texts: there must be as many")
    return [check_stops(one) for one in stop]
