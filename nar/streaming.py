"""Text as it is accepted: what is certain of each row, and where its stop strings end it."""

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nar.core import Decoder, Source, failed_rows, role
from nar.data.batching import evaluation_batches
from nar.data.tokenizer import Vocabulary
from nar.drivers import decode, stream
from nar.ends import ending, stops_by_row
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


def continuations(
    tokenizer: Vocabulary, prompts: Sequence[Sequence[int]], outputs: Sequence[Iterable[int]]
) -> list[str]:
    """The texts of outputs as they go on from their prompts, blanks and all."""
    begun, found = tokenizer.decode(prompts), dict[int, str]()
    # Where bytes of a character are missing, some tokenizers give up those before it as well,
    # which may be the prompt's; so the last tokens wait, three at most of a character's four.
    for cut in range(4):
        waiting = [i for i in range(len(prompts)) if i not in found]
        rows = [[*outputs[i]] for i in waiting]
        kept = [row[: max(len(row) - cut, 0)] for row in rows]
        wholes = [[*prompts[i], *row] for i, row in zip(waiting, kept, strict=True)]
        for i, whole in zip(waiting, tokenizer.decode(wholes), strict=True):
            if whole.startswith(begun[i]):
                found[i] = whole[len(begun[i]) :] + HALF * (cut > 0)
        if len(found) == len(prompts):
            return [found[i] for i in range(len(prompts))]
    return [found.get(i, text) for i, text in enumerate(tokenizer.decode(outputs))]


def unfold(
    translator: "Translator",
    texts: Sequence[str],
    decoder: Decoder,
    *,
    stop: Sequence[str] | Sequence[Sequence[str]] = (),
    limits: Sequence[int] | None = None,
    key: Key[Array, ""] | None = None,
    numbers: Sequence[int] | None = None,
    stop_tokens: Sequence[str] = (),
    cut: Callable[[int], object] = lambda number: None,
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
        stop_tokens: pieces that end an output.
        cut: told the place of a text whose output is cut at its limit, once or more.

    Returns:
        An iterator of the new pieces, one a text, some of them empty.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: a text is too long, or a stop string or a limit is none; before anything runs.

    Warns:
        UserWarning: texts, which are named, for which the model's logits were NaN; at the end.
    """
    translator, stops = ending(translator, stops_by_row(stop, len(texts)), stop_tokens)
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
    steps, eos = run(decoder, translator.model, batch, key=keys), role(translator.model).spec.eos

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
            for row, i in enumerate(rows):
                ended = unfolding[row].stopped or eos in outputs[row][-1:] or i in failed
                if done[row] and not ended:
                    cut(i)
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
