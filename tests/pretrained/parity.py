"""Imported models beside transformers, on the same weights and inputs.

    pip install torch transformers
    python -m tests.pretrained.parity                                # tiny ones of every layout
    python -m tests.pretrained.parity --models DIR ... --lines FILE  # yours, too

Logits of every token of transformers' greedy outputs must be within 1e-4, greedy outputs the same,
and scores of beam search within 1e-4, wherever it settles before the limit (there, transformers
lets hypotheses compete that have no end). Where lines are given, token ids and texts must be the
same too; without, sources are random tokens. Exit status 1 when something differs.
"""

import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import tyro

import nar
from nar.core import Source
from nar.lines import read_texts
from nar.testing.oracles import teacher_forced
from tests.pretrained import tiny

NEEDED = ("torch", "transformers")
TOLERANCE, ROWS = 1e-4, 50


def main(
    models: tuple[pathlib.Path, ...] = (),
    tiny_models: tuple[str, ...] = tuple(tiny.CASES),
    lines: pathlib.Path | None = None,
    count: int = 200,
    max_length: int = 64,
) -> None:
    """Prints a line a model.

    Args:
        models: directories.
        tiny_models: which tiny models come first.
        lines: texts for the directories, one a line; random tokens by default.
        count: how many sources.
        max_length: of tiny models' outputs at most 24.
    """
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        sys.exit(f"parity needs {' and '.join(missing)}: pip install {' '.join(NEEDED)}")
    print(f"{'model':24}{'sources':>8}{'tokens':>8}{'logits':>10}{'greedy':>9}   beam-4 scores")
    texts = read_texts(lines)[:count] if lines else None
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in tiny_models:
            directory = pathlib.Path(folder, name)
            tiny.write(directory, name)
            failed += not compare(directory, tiny.rows(count), tiny.MOST)
    for directory in models:
        failed += not compare(directory, texts or count, max_length)
    sys.exit(f"{failed} models differ" if failed else 0)


def compare(
    directory: pathlib.Path, given: Sequence[str] | Sequence[list[int]] | int, most: int
) -> bool:
    """Whether all is the same; prints the line.

    Args:
        directory: of the model.
        given: texts, sources, or how many random sources to make.
        most: tokens to write for each.
    """
    from tests.pretrained.peer import Peer

    translator, peer = nar.load(directory), Peer(directory, ROWS)
    model, differs = translator.model, []
    sources = given if not isinstance(given, int) else random_sources(model.spec.vocab_size, given)
    if isinstance(sources[0], str):
        texts, sources = sources, translator.encode(sources)
        differs += ["token ids"] * (sources != peer.encode(texts))

    targets = peer.greedy(sources, most)
    greedy = [*batches(nar.Greedy(max_length=most), model, sources)]
    same = sum(ours == theirs for (ours, _, _), theirs in zip(greedy, targets, strict=True))
    differs += ["greedy outputs"] * (same < len(sources))

    free, gap = tiny.free(model.config), 0.0
    for at in range(0, len(sources), ROWS):
        part = slice(at, at + ROWS)
        target = Source.of(targets[part], width=most).tokens
        logits = teacher_forced(model, Source.of(sources[part], width=longest(sources)), target)
        theirs = peer.logits(sources[part], targets[part])
        for ours, row in zip(np.asarray(logits), theirs, strict=True):
            gap = max(gap, np.abs(ours[: len(row), free] - row[:, free]).max())
    differs += ["logits"] * (not gap <= TOLERANCE)

    beam = ""
    if model.spec.encoder:
        outputs, scores = peer.beam(sources, most, tiny.BEAMS)
        found = [*batches(nar.Beam(max_length=most, beams=tiny.BEAMS), model, sources)]
        settled = [i for i, (_, _, calls) in enumerate(found) if calls < most]
        apart = max((abs(found[i][1] - scores[i]) for i in settled), default=0.0)
        equal = sum(found[i][0] == outputs[i] for i in settled)
        beam = f"{apart:.1e}, {equal} of {len(settled)} outputs the same"
        differs += ["beam scores"] * (not apart <= TOLERANCE)
    counts = f"{len(sources):>8}{sum(map(len, targets)):>8}"
    print(
        f"{directory.name:24}{counts}{gap:>10.1e}{same / len(sources):>9.1%}   {beam:40}"
        f"{'DIFFERS: ' if differs else ''}{', '.join(differs)}",
        flush=True,
    )
    return not differs


def batches(
    decoder: nar.Decoder, model: nar.Transformer, sources: Sequence[list[int]]
) -> Iterator[tuple[list[int], float, int]]:
    """Each source's output, its score, and the calls it needed; batches of one shape."""
    for at in range(0, len(sources), ROWS):
        batch = sources[at : at + ROWS]
        filled = [*batch, *[batch[0]] * (ROWS - len(batch))]
        output = nar.decode(decoder, model, Source.of(filled, width=longest(sources)))
        scores = np.zeros(ROWS) if output.scores is None else np.asarray(output.scores)
        live, length = np.asarray(output.stats.live), np.asarray(output.length)
        for row, tokens in enumerate(np.asarray(output.tokens)[: len(batch)]):
            yield tokens[: length[row]].tolist(), float(scores[row]), int(live[row])


def longest(sources: Sequence[list[int]]) -> int:
    """The length of the longest one."""
    return max(map(len, sources))


def random_sources(vocab_size: int, count: int) -> list[list[int]]:
    """Of 1 to 24 tokens, any there are."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocab_size, n).tolist() for n in random.integers(1, 25, count)]


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
