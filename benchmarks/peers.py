# pyright: reportMissingImports=false
"""Other implementations on the same weights, as functions from token ids to token ids.

They are no dependencies: `pip install torch transformers ctranslate2` brings them, and what is not
installed is left out. Each one runs in a process of its own: in one process their pools of threads
slow each other down by up to four times.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

Ids = list[int]
Run = Callable[[Sequence[Ids]], list[Ids]]

TURN = 10
"""So many batches one implementation decodes before it is the next one's turn."""

PAUSE = 0.3
"""Seconds before a turn: OpenMP's threads spin for 0.2 s after their work, on a core that the next
one needs."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Somebody who decodes: a name, and what makes, in its process, the function that does it.

    Every call of that function is one batch of sorted sources.
    """

    name: str
    make: Callable[[], Run]


def nar_decoder(directory: pathlib.Path, description: str, most: int) -> Peer:
    """A decoder of ours.

    Args:
        directory: of the model.
        description: of the decoder; or a file that `nar tune` wrote.
        most: tokens to write.
    """
    return Peer(f"nar {description}", functools.partial(_nar, directory, description, most))


def _nar(directory: pathlib.Path, description: str, most: int) -> Run:
    import jax

    import nar
    from nar.data.batching import evaluation_batches
    from nar.drivers import Program, compile_decode

    translator, key = nar.load(directory), jax.random.key(0)
    decoder = translator.make_decoder(description, most)
    programs: dict[tuple[int, ...], Program] = {}

    def run(sources: Sequence[Ids]) -> list[Ids]:
        rows, source = next(evaluation_batches(sources, len(sources)))
        shape = source.tokens.shape
        if shape not in programs:
            programs[shape] = compile_decode(decoder, translator.model, source, key=key)
        output = programs[shape](source, key)
        tokens, length = np.asarray(output.tokens), np.asarray(output.length)
        found: list[Ids] = [[] for _ in sources]
        for place, row, n in zip(rows, tokens, length, strict=False):
            found[place] = row[:n].tolist()
        return found

    return run


def transformers_greedy(
    directory: pathlib.Path, threads: int, most: int, **options: object
) -> Iterator[Peer]:
    """Transformers' `generate`, where it is installed.

    Args:
        directory: of the model.
        threads: of torch.
        most: tokens to write.
        **options: of `generate`.
    """
    if installed("transformers", "torch"):
        kind = " ".join(["transformers", *(f"{k}={v}" for k, v in options.items())])
        make = functools.partial(_transformers, directory, threads, most, **options)
        yield Peer(f"{kind}, {threads} thread{'s' * (threads > 1)}", make)


def _transformers(directory: pathlib.Path, threads: int, most: int, **options: object) -> Run:
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory)
    encoder = config.is_encoder_decoder
    kind = "Seq2SeqLM" if encoder else "CausalLM"
    load = getattr(transformers, f"AutoModelFor{kind}").from_pretrained
    model = load(directory, dtype=torch.float32).eval()
    pad = config.eos_token_id if config.pad_token_id is None else config.pad_token_id

    def run(sources: Sequence[Ids]) -> list[Ids]:
        torch.set_num_threads(threads)
        width = max(map(len, sources))
        ids, mask = np.full((len(sources), width), pad), np.zeros((len(sources), width), int)
        for row, source in enumerate(sources):
            # A prompt ends where its continuation begins.
            place = slice(len(source)) if encoder else slice(width - len(source), width)
            ids[row, place], mask[row, place] = source, 1
        with torch.inference_mode():
            found = model.generate(
                torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), max_new_tokens=most,
                do_sample=False, num_beams=1, pad_token_id=pad, **options,
            )  # fmt: skip
        start = 1 if encoder else width
        return [until(row[start:].tolist(), config.eos_token_id) for row in found]

    return run


def ctranslate2_marian(
    directory: pathlib.Path,
    threads: Sequence[int],
    most: int,
    kinds: Sequence[str],
    **options: object,
) -> Iterator[Peer]:
    """CTranslate2 on a Marian model, where it is installed.

    The stock converter starts from a zero embedding and drops the pad's row; here both stay as they
    are in the weights, or other text would be written.

    Args:
        directory: of the model.
        threads: numbers of threads to try.
        most: tokens to write.
        kinds: of numbers: "float32", "int8".
        **options: of `translate_batch`.
    """
    if installed("ctranslate2", "transformers", "torch"):
        for kind in kinds:
            for count in threads:
                make = functools.partial(_ctranslate2, directory, count, most, kind, **options)
                yield Peer(f"CTranslate2 {kind}, {count} thread{'s' * (count > 1)}", make)


def _ctranslate2(
    directory: pathlib.Path, threads: int, most: int, kind: str, **options: object
) -> Run:
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.converters import transformers as theirs

    class Loader(theirs.MarianMTLoader):
        def get_model_spec(self, model):
            model.config.normalize_before = model.config.normalize_embedding = False
            return theirs.BartLoader.get_model_spec(self, model)

        def set_config(self, config, model, tokenizer):
            super().set_config(config, model, tokenizer)
            config.decoder_start_token = "<pad>"

        def set_decoder(self, spec, decoder):
            super().set_decoder(spec, decoder)
            spec.start_from_zero_embedding = False

        def get_vocabulary(self, model, tokenizer):
            return theirs.BartLoader.get_vocabulary(self, model, tokenizer)

    theirs._MODEL_LOADERS["MarianConfig"] = Loader()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model"
        TransformersConverter(str(directory)).convert(str(path))
        pieces: list[str] = json.loads((path / "shared_vocabulary.json").read_text())
        ids = {piece: i for i, piece in enumerate(pieces)}
        model = ctranslate2.Translator(str(path), compute_type=kind, intra_threads=threads)

    def run(sources: Sequence[Ids]) -> list[Ids]:
        found = model.translate_batch(
            [[pieces[t] for t in source] for source in sources], beam_size=1,
            max_decoding_length=most, suppress_sequences=[["<pad>"]], **options,
        )  # fmt: skip
        rows = [[ids[piece] for piece in one.hypotheses[0]] for one in found]
        return [[*row, ids["</s>"]] if len(row) < most else row for row in rows]

    return run


def until(row: Ids, eos: int) -> Ids:
    """A row up to its EOS."""
    return row[: row.index(eos) + 1] if eos in row else row


def installed(*packages: str) -> bool:
    """Whether all of them are; says which are not."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not compared with: {', '.join(missing)} (pip install {' '.join(missing)})")
    return not missing


@contextlib.contextmanager
def at_work(peer: Peer) -> Iterator[Callable[[Sequence[Ids]], tuple[float, list[Ids]]]]:
    """A peer in a process of its own, as a function: seconds and outputs of a batch."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(peer, there))
    process.start()
    there.close()  # when the process ends early, so does what waits for it

    def run(sources: Sequence[Ids]) -> tuple[float, list[Ids]]:
        here.send(sources)
        return here.recv()

    try:
        yield run
    finally:
        here.close()
        process.join()


def _serve(peer: Peer, pipe: multiprocessing.connection.Connection) -> None:
    run = peer.make()
    with contextlib.suppress(EOFError):
        while True:
            sources = pipe.recv()
            start = time.perf_counter()
            found = run(sources)
            pipe.send((time.perf_counter() - start, found))


def in_turn(
    peers: Sequence[Peer], batches: Sequence[Sequence[Ids]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[Ids]]]:
    """Seconds of every batch, the median of repeats in turn, and the outputs."""
    spent: dict[str, list[list[float]]] = {peer.name: [[] for _ in batches] for peer in peers}
    outputs: dict[str, list[Ids]] = {peer.name: [] for peer in peers}
    with contextlib.ExitStack() as stack:
        working = [(peer.name, stack.enter_context(at_work(peer))) for peer in peers]
        for turn in range(0, len(batches), TURN):
            for repeat in range(repeats + 1):  # the first one compiles and warms up
                first = (turn // TURN + repeat) % len(peers)
                for name, run in [*working[first:], *working[:first]]:
                    time.sleep(PAUSE)
                    for number, batch in enumerate(batches[turn : turn + TURN], turn):
                        seconds, found = run(batch)
                        if repeat:
                            spent[name][number].append(seconds)
                        else:
                            outputs[name] += found
    return {name: list(map(statistics.median, times)) for name, times in spent.items()}, outputs


def show(
    title: str,
    seconds: Mapping[str, Sequence[float]],
    outputs: Mapping[str, Sequence[Ids]],
    base: str,
) -> None:
    """Prints the table: how fast, against `base` with 95 % of resampled batches, and how equal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in ("", "ms a text", "texts/s", f"speed over {base}", f"= {base}", "tokens"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    drawn = np.random.default_rng(0).choice(len(seconds[base]), (1000, len(seconds[base])))
    texts = len(outputs[base])
    for name, times in seconds.items():
        ours, theirs = np.array(times), np.array(seconds[base])
        low, high = np.percentile(theirs[drawn].sum(1) / ours[drawn].sum(1), (2.5, 97.5))
        same = np.mean([a == b for a, b in zip(outputs[name], outputs[base], strict=True)])
        table.add_row(
            name,
            f"{1e3 * ours.sum() / texts:.2f}",
            f"{texts / ours.sum():.0f}",
            f"{theirs.sum() / ours.sum():.2f} [{low:.2f}–{high:.2f}]",
            f"{same:.1%}",
            f"{np.mean([len(row) for row in outputs[name]]):.1f}",
        )
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
