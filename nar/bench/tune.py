"""Should this model decode in parallel here, and how? Measures, predicts, searches, confirms.

A decoder's calls and positions do not depend on the device, and what they cost does not depend on
the decoder. So few things are timed: the step-cost curve once, and single sentences for the few
decoders that it favours. All others are tried by counting.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nar.bench.acceptance import acceptance_rates
from nar.bench.measure import (
    Contender,
    Programs,
    Progress,
    latency,
    mean_work,
    silent,
    work_by_row,
)
from nar.bench.protocol import BASELINE, architecture, ratio_interval, typical
from nar.bench.report import machine
from nar.bench.step_cost import StepCosts, up_to
from nar.bench.tuned import Trial, Tuned
from nar.core import TARGET, Decoder, Source, failed_rows
from nar.data.batching import evaluation_batches
from nar.decoders import DECODERS, make
from nar.decoders.speculative_decoding import SpeculativeDecoding
from nar.drafters.trees import best_tree, write_tree
from nar.drivers import decode
from nar.errors import NarError, at_least
from nar.translator import Translator

WIDEST = 128
"""Positions of a call up to which the curve is measured; a decoder that scores more is left out."""

WIDE = {"guesses": 3, "branches": "4-2-1"}
TREES = (3, 5, 8)
"""Drafts of a model: the tree on which acceptances are measured, and the sizes grown from them."""

Space = Mapping[str, Mapping[str, Sequence[Any]]]

SPACE: Space = {
    "jacobi": {"block": (3, 2, 4, 6, 8), "guess": ("pad", "source", "previous")},
    "lookahead": {"ngram": (4, 3, 5), "window": (5, 3, 7, 10), "candidates": (5, 3, 7, 10)},
    "prompt-lookup": {"guesses": (5, 2, 3, 7, 10), "ngram": (3, 1, 2)},
    "corpus-lookup": {"guesses": (5, 3, 8), "candidates": (1, 2, 4)},
    "self-speculative": {"layers": (1, 2, 3), "guesses": (2, 1, 3, 4)},
    "speculative": {"guesses": (3, 1, 2, 4, 6)},
}
"""What is searched: options of decoders and their values; the search begins with the first ones.

What a model lacks (a corpus, a draft model, layers) is not tried.
"""


def tune(
    translator: Translator,
    texts: Sequence[str],
    *,
    name: str = "model",
    max_length: int | None = None,
    sentences: int = 32,
    finalists: int = 4,
    repeats: int = 5,
    space: Space | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Finds the fastest lossless decoder for single texts on this device.

    Args:
        translator: a model with its tokenizer.
        texts: what is decoded in practice; a sample, spread evenly, is used.
        name: what to call the model.
        max_length: the most tokens to write; by default the translator's.
        sentences: texts of the sample.
        finalists: decoders whose prediction is confirmed by timing.
        repeats: timings of every text, in turn; their median counts.
        space: what to search.
        progress: told what is going on.

    Raises:
        NarError: there are no texts, or one does not fit the model.
    """
    for option, value in (("sentences", sentences), ("finalists", finalists), ("repeats", repeats)):
        at_least(option, value, 1)
    real = [i for i, text in enumerate(texts) if text.strip()]
    if not real:
        raise NarError("there are no texts: tuning needs what is decoded in practice")
    drawn = np.linspace(0, len(real) - 1, min(sentences, len(real)), dtype=int)
    picked = [real[int(i)] for i in drawn]
    max_length = translator.max_length if max_length is None else max_length
    sources = translator.fitting(texts, make(BASELINE, max_length=max_length), picked)
    trials = _Trials(translator, sources, max_length, progress)
    for family, options in (SPACE if space is None else space).items():
        trials.search(family, options)

    if not trials.found:
        raise NarError(f"max_length={max_length}: no decoder of {list(space or SPACE)} fits it")
    promising = sorted(trials.found.values(), key=lambda trial: -trial.predicted)
    leaders = {trial.decoder.partition(":")[0]: trial for trial in reversed(promising)}
    chosen = list(dict.fromkeys([*leaders.values(), *promising]))[: max(finalists, len(leaders))]
    timed, greedy_ms = _confirm(trials, [trial.decoder for trial in chosen], repeats, progress)
    found = {**trials.found, **{trial.decoder: trial for trial in timed}}
    surely = [trial for trial in timed if trial.s1_speedup_ci and trial.s1_speedup_ci[0] > 1]
    best = max(surely, key=lambda trial: trial.s1_speedup or 0, default=None)
    return Tuned(
        decoder=BASELINE if best is None else best.decoder,
        model=name,
        weights=translator.weights,
        architecture=architecture(translator.model),
        machine=machine(),
        texts=len(sources),
        greedy_ms=greedy_ms,
        step_cost=dataclasses.asdict(trials.costs.target),
        trials=sorted(found.values(), key=lambda trial: -trial.predicted),
    )


class _Trials:
    """Decoders that were tried by counting, and what they have in common."""

    def __init__(
        self,
        translator: Translator,
        sources: Sequence[Sequence[int]],
        max_length: int,
        progress: Progress,
    ):
        self._translator, self._max_length, self._progress = translator, max_length, progress
        self.sources = sources
        self.found: dict[str, Trial] = {}
        self.greedy = self.contender(BASELINE)
        self.costs = StepCosts(
            translator.model,
            source=typical(self.greedy),
            max_length=max_length,
            positions=up_to(WIDEST),
            progress=progress,
        )
        self._outputs, work = self._count(BASELINE)
        self._greedy_ms = self.costs.predict(self.greedy.decoder, work)

    def contender(self, description: str, baseline: Contender | None = None) -> Contender:
        """A decoder on the sample."""
        decoder = make(description, max_length=self._max_length)
        return Contender(
            decoder=decoder, model=self._translator.model, sources=self.sources, baseline=baseline
        )

    def _batch(self, decoder: Decoder) -> tuple[np.ndarray, Source]:
        room = self._translator.room(decoder)
        return next(evaluation_batches(self.sources, len(self.sources), max_length=room))

    def _count(self, description: str) -> tuple[list[np.ndarray], dict[str, tuple[float, float]]]:
        """The outputs of the sample; calls and positions of a text by role, means."""
        decoder = make(description, max_length=self._max_length)
        rows, source = self._batch(decoder)
        output = decode(decoder, self._translator.model, source)
        if lost := int(failed_rows(output).sum()):
            raise NarError(f"{description}: the model's logits are NaN for {lost} of the texts")
        back = np.argsort(rows)
        tokens, length = np.asarray(output.tokens)[back], np.asarray(output.length)[back]
        outputs = [row[:n] for row, n in zip(tokens, length, strict=True)]
        return outputs, mean_work(work_by_row(output))

    def search(self, family: str, options: Mapping[str, Sequence[Any]]) -> None:
        """Follows the prediction: one option after the other, until no change of one helps."""
        best, before = {name: values[0] for name, values in options.items()}, None
        while best != before:
            before = best
            for name, values in options.items():
                tried = [{**best, name: value} for value in values]
                best = max(tried, key=lambda options: self.predict(family, options))
        if self.predict(family, best) and issubclass(DECODERS[family], SpeculativeDecoding):
            self.grow(family, best)

    def grow(self, family: str, options: Mapping[str, Any]) -> None:
        """Tries the trees that are best for the acceptances measured on a wide one."""
        wide = make(describe(family, {**options, **WIDE}), max_length=self._max_length)
        assert isinstance(wide, SpeculativeDecoding)
        try:
            _, source = self._batch(wide)
        except NarError:  # the tree is too deep for the model's positions
            return
        rates = acceptance_rates(wide, self._translator.model, [source])
        for nodes in TREES:
            branches = write_tree(best_tree(rates, nodes))
            tree = {"guesses": branches.count("-") + 1, "branches": branches}
            self.predict(family, {**options, **tree})

    def predict(self, family: str, options: Mapping[str, Any]) -> float:
        """The predicted speed-up; 0 of what does not fit the lengths, the model or the curve."""
        description = describe(family, options)
        if description not in self.found:
            try:
                outputs, work = self._count(description)
                decoder = make(description, max_length=self._max_length)
                predicted = self._greedy_ms / self.costs.predict(decoder, work)
            except NarError:
                return 0.0
            same = [np.array_equal(*pair) for pair in zip(outputs, self._outputs, strict=True)]
            calls, positions = work[TARGET]
            self.found[description] = Trial(
                decoder=description,
                calls=calls,
                tokens_per_call=float(np.mean([len(output) for output in outputs])) / calls,
                positions_per_call=positions / calls,
                exact_match=float(np.mean(same)),
                predicted=predicted,
            )
            self._progress("decoders tried", len(self.found), len(self.found) + 1)
        return self.found[description].predicted


def describe(family: str, options: Mapping[str, Any]) -> str:
    """A decoder as `nar.make` reads it."""
    return f"{family}:{','.join(f'{name}={value}' for name, value in options.items())}"


def _confirm(
    trials: _Trials, chosen: Sequence[str], repeats: int, progress: Progress
) -> tuple[list[Trial], float]:
    """Times the chosen ones in turn with greedy, text by text; greedy's median too."""
    contenders = {name: trials.contender(name, trials.greedy) for name in chosen}
    s1 = latency(
        [trials.greedy, *contenders.values()],
        range(len(trials.sources)),
        Programs(0),
        repeats=repeats,
        progress=progress,
    )
    base = s1[trials.greedy].ms
    timed = [
        dataclasses.replace(
            trials.found[name],
            s1_speedup=sum(base) / sum(s1[contender].ms),
            s1_speedup_ci=ratio_interval(base, s1[contender].ms),
        )
        for name, contender in contenders.items()
    ]
    return timed, float(np.median(base))
