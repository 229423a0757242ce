"""The command line: nar translate | trace | bench | tune | ngram."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nar.bench.protocol import Protocol
from nar.ending import OUTPUT, one_line_errors
from nar.errors import NarError
from nar.files import naming

if TYPE_CHECKING:
    from nar.core import Decoder
    from nar.translator import Translator

app = tyro.extras.SubcommandApp()
TRACE, REPORT, PROTOCOL = pathlib.Path("trace.html"), pathlib.Path("report"), Protocol()
TUNED = pathlib.Path("tuned")


@dataclasses.dataclass(frozen=True)
class Helpers:
    """What some decoders need beside a model.

    Attributes:
        draft: directory of a model with the same vocabulary, for speculative (a smaller one) and
            parallel-draft (one that predicts in parallel).
        reranker: directory of a causal model with the same vocabulary, for noisy-parallel.
        corpus: a file of texts like those to write, one a line, for the decoder corpus-lookup.
        language: an ARPA file that nar ngram wrote, for the decoder ctc-beam with alpha above 0.
    """

    draft: pathlib.Path | None = None
    reranker: pathlib.Path | None = None
    corpus: pathlib.Path | None = None
    language: pathlib.Path | None = None


ALONE = Helpers()


@app.command
def translate(
    *,
    model: pathlib.Path,
    decoder: str = "greedy",
    helpers: Annotated[Helpers, tyro.conf.arg(name="")] = ALONE,
    batch_size: int = 64,
    max_length: int | None = None,
    truncate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    stop: tuple[str, ...] = (),
    stop_token: tuple[str, ...] = (),
    scores: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    nbest: int = 0,
    jsonl: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    chat: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    stream: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    resume: pathlib.Path | None = None,
    seed: int = 0,
) -> None:
    """Translates the lines of standard input to standard output, in order.

    A decoder-only model continues each line. Empty lines stay empty. Input and output are UTF-8.

    Args:
        model: directory of a trained model and its tokenizer.
        decoder: its name, and options: jacobi:block=5; or a file that `nar tune` wrote.
        helpers: what decoders may need beside the model.
        batch_size: lines decoded together, of similar lengths.
        max_length: the most tokens to write for a line. By default 128, or as many as the model
            has positions; of a decoder-only model's positions at most half.
        truncate: cut lines that are too long for the model, and name them. Of a line to translate
            the end is cut, of a line to continue the beginning.
        stop: strings that end an output before them; one that is a special token does so by its id.
        stop_token: tokens of the vocabulary that end an output, by name: "<|im_end|>".
        scores: write `number ||| text ||| score`, numbers from 0; the decoder is asked for scores.
        nbest: so many such lines for each line, the best output first; blank lines have none.
        jsonl: each line is JSON: a string, or an object with its text as "text" or "prompt"; each
            line written is an object of text, score, finish_reason and, with --nbest, nbest.
        chat: put each line into the tokenizer's chat template, as a user's message; with --jsonl
            also the "messages" of an object.
        stream: write every line's text as soon as it is accepted, one line after the other.
        resume: a file that keeps finished lines. The same command, run again after it was stopped,
            goes on from there; its output is complete.
        seed: of decoders that sample.
    """
    import jax

    from nar.ends import ending
    from nar.formats import as_json, as_line, as_list, from_json
    from nar.lines import Journal, Lines, translations
    from nar.progress import Progress
    from nar.results import asking
    from nar.translator import load

    if seed not in range(2**32):
        raise NarError(f"seed={seed}: it must be in 0..{2**32 - 1}")
    if stream and (resume or truncate):
        raise NarError("stream: what is written at once can neither be resumed nor truncated")
    if stream and (jsonl or scores or nbest):
        raise NarError("stream: what is written at once has no score yet, and is no whole JSON")
    translator, (strings,) = ending(load(model, **vars(helpers)), [stop], stop_token)
    method = translator.make_decoder(decoder, max_length)
    method = asking(method, translator.model, scores=scores, nbest=nbest)
    read, write = None, as_list if scores or nbest else as_line
    if chat:
        read, translator = translator.chat.render, translator.verbatim
    if jsonl:
        read = functools.partial(from_json, render=read)
        write = functools.partial(as_json, nbest=nbest > 0)
    options = {"stop": strings, "key": jax.random.key(seed)}
    if stream:
        return _stream(translator, method, read, **options)
    settings = {"weights": translator.weights, "decoder": repr(method), "seed": seed}
    tokens = [*stop_token, *(text for text in stop if text not in strings)]
    asked = {"stop": [*strings], "stop_tokens": tokens, "chat": chat}
    asked |= {"scores": scores, "nbest": nbest, "jsonl": jsonl}
    settings |= {name: value for name, value in asked.items() if value}
    options |= {"batch_size": batch_size, "truncate": truncate, "nbest": nbest}
    try:
        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(Journal(resume, settings)) if resume else None
            lines = Lines(sys.stdin.buffer, read)
            # Where translations come out on the same terminal, they show how far it is.
            progress = stack.enter_context(Progress(hidden=sys.stdout.isatty()))
            done = lambda count: progress("lines", count, len(lines))  # noqa: E731
            options |= {"journal": journal, "progress": done}
            windows = translations(translator, lines, method, **options)
            number = itertools.count()
            for window in windows:
                _write("".join(write(next(number), result) for result in window))
    except KeyboardInterrupt:
        could = "goes on" if resume else "with --resume JOURNAL could have gone on"
        _say(f"stopped: the same command {could} from here")
        raise


def _stream(
    translator: "Translator",
    decoder: "Decoder",
    read: Callable[[str], str] | None,
    **options: Any,
) -> None:
    """Writes what becomes of each line of standard input while it is written."""
    from nar.lines import Flaws, one_line, text_of
    from nar.results import Result
    from nar.streaming import unfold

    flaws, number = Flaws(decoder), -1
    for number, line in enumerate(sys.stdin.buffer):
        text = text_of(line, number, read)
        cut: set[int] = set()
        options |= {"numbers": [number], "cut": cut.add}
        for (piece,) in unfold(translator, [text], decoder, **options):
            _write(one_line(piece))
        _write("\n")
        if cut:
            flaws.count({number: Result(text="", finish_reason="length")})
    flaws.warn(number + 1)


@app.command
def trace(
    *,
    model: pathlib.Path,
    text: str,
    decoder: str = "greedy",
    helpers: Annotated[Helpers, tyro.conf.arg(name="")] = ALONE,
    output: pathlib.Path = TRACE,
) -> None:
    """Decodes one text and draws every step: a page to scrub through, and a PNG beside it.

    Args:
        model: directory of a trained model and its tokenizer.
        text: what to translate, or to continue.
        decoder: its name, and options: jacobi:block=5; or a file that `nar tune` wrote.
        helpers: what decoders may need beside the model.
        output: of the page.
    """
    from nar.bench.trace_page import write_trace
    from nar.translator import load

    translator = load(model, **vars(helpers))
    written = write_trace(translator, translator.make_decoder(decoder), text, output)
    print(*written, sep="\n")


@app.command
def bench(
    *,
    model: tuple[pathlib.Path, ...],
    data: pathlib.Path,
    decoders: tuple[str, ...],
    helpers: Annotated[Helpers, tyro.conf.arg(name="")] = ALONE,
    split: str = "test",
    source: str = "en",
    target: str = "de",
    output: pathlib.Path = REPORT,
    metric: Literal["bleu", "token_error"] = "bleu",
    bleu_tokenizer: str | None = None,
    tokenized: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    max_length: int | None = None,
    protocol: Protocol = PROTOCOL,
) -> None:
    """Compares decoders on a test set: report.json, and report.html with pictures.

    Args:
        model: directories of trained models; the first one's greedy is the baseline.
        data: the folder of the test set's two files, SPLIT.SOURCE and SPLIT.TARGET.
        decoders: names, and options: greedy beam jacobi:block=5; or files that `nar tune` wrote.
        helpers: what decoders may need beside the model.
        split: the test set's name.
        source: the source language, a file's ending.
        target: the target language, the other file's; BLEU's tokenizer follows it.
        output: directory of the report and of all outputs.
        metric: what decoders are compared by.
        bleu_tokenizer: sacreBLEU's name of another one, such as zh, ja-mecab, ko-mecab or char.
        tokenized: give papers' tokenised BLEU too.
        max_length: the most tokens to write; by default as in the model's training.
        protocol: how much to measure.
    """
    import jax

    from nar.bench.protocol import System
    from nar.bench.publish import publish, show
    from nar.data.text import Pairs

    jax.config.update("jax_compilation_cache_dir", None)  # what is measured is compiled for real
    pairs = Pairs(data, split, source, target)
    systems = [
        System.load(path, decoders, max_length=max_length, **vars(helpers)) for path in model
    ]
    report = publish(
        systems,
        pairs,
        output,
        title=f"{data.name}/{split}",
        data=f"{data.name}/{split} ({source} to {target})",
        metric=metric,
        language=target,
        tokenizer=bleu_tokenizer,
        tokenized=target if tokenized else None,
        protocol=protocol,
    )
    show(report, output)


@app.command
def tune(
    *,
    model: pathlib.Path,
    data: pathlib.Path,
    helpers: Annotated[Helpers, tyro.conf.arg(name="")] = ALONE,
    output: pathlib.Path = TUNED,
    max_length: int | None = None,
    sentences: int = 32,
    finalists: int = 4,
    repeats: int = 5,
) -> None:
    """Answers whether to decode in parallel here, and writes the decoder to use.

    It measures what calls cost on this machine, counts calls of many decoders, and times those for
    which that looks best: tuned/tuned.json, which --decoder takes, and tuned/tuned.html.

    Args:
        model: directory of a trained model and its tokenizer.
        data: a file of texts as they are decoded in practice, one a line.
        helpers: what decoders may need beside the model.
        output: directory of both files.
        max_length: the most tokens to write.
        sentences: lines of the sample, spread evenly over the file.
        finalists: decoders that are timed.
        repeats: timings of every line, in turn; their median counts.
    """
    from nar.bench.tune import tune as search
    from nar.bench.tune_page import answer, table, write_tuned
    from nar.bench.tuned import FILE
    from nar.lines import Lines
    from nar.progress import Progress
    from nar.translator import load

    if output.exists() and not output.is_dir():
        raise NarError(f"{output} is a file: it must be a directory, for {FILE} and its page")
    translator = load(model, **vars(helpers))
    with open(data, "rb") as file:
        lines = Lines(file)
    texts = [lines[i] for i in range(len(lines))]
    with Progress() as progress:
        tuned = search(
            translator,
            texts,
            name=model.resolve().name,
            max_length=max_length,
            sentences=sentences,
            finalists=finalists,
            repeats=repeats,
            progress=progress,
        )
    table(tuned).show()
    print(*answer(tuned), *write_tuned(tuned, output), sep="\n")


@app.command
def ngram(*, model: pathlib.Path, text: pathlib.Path, output: pathlib.Path, order: int = 4) -> None:
    """Learns an n-gram language model of a model's pieces (Kneser-Ney), for --language.

    Args:
        model: directory of a trained model and its tokenizer.
        text: a file of texts like those to write, one a line.
        output: the ARPA file.
        order: pieces of the longest n-grams.
    """
    from nar.lines import read_texts
    from nar.ngram import learn_arpa
    from nar.translator import load

    learn_arpa(output, read_texts(text), load(model).tokenizer, order=order)
    print(output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what a user can mend is one line on standard error and status 1."""
    from nar import compilation_cache

    compilation_cache.enable()
    try:
        with one_line_errors(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
            app.cli(prog="nar", args=arguments)
    except KeyboardInterrupt:
        sys.exit(130)


def _write(text: str) -> None:
    with naming(OUTPUT):
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
