"""The whole benchmark: what decoders take, how good what they write is, and one report of both."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from nar.bench.measure import Progress, silent
from nar.bench.metrics import MetricName
from nar.bench.protocol import BASELINE, Protocol, System, speeds
from nar.bench.quality import Judge
from nar.bench.report import Report, Row, machine
from nar.core import role
from nar.data.text import Corpus, fingerprint
from nar.errors import NarError


def bench(
    systems: Sequence[System],
    corpus: Corpus,
    *,
    title: str,
    data: str,
    metric: MetricName = "bleu",
    protocol: Protocol | None = None,
    progress: Progress = silent,
    keep: Callable[[Row, list[str]], None] = lambda row, outputs: None,
    **scoring: str | None,
) -> Report:
    """Runs all decoders of all systems over a test set.

    Args:
        systems: the first one's greedy is the baseline; its model must be causal.
        corpus: source and reference texts.
        title: what the report is about.
        data: what the test set is called.
        metric: what p-values are about.
        protocol: how much to measure.
        progress: told what is going on.
        keep: given every row with its outputs.
        **scoring: language, tokenizer and tokenized, as `Judge` takes them.

    Raises:
        NarError: an unknown decoder, metric or tokenizer, models of one name, or a model that
            cannot read the test set; before anything runs. A decoder that needs what a model lacks
            is a row that says so.
    """
    protocol = protocol or Protocol()
    pairs = [corpus[i] for i in range(len(corpus))]
    judge = Judge(metric, [reference for _, reference in pairs], **scoring)
    if systems and not role(systems[0].translator.model).spec.causal:
        raise NarError(
            f"{systems[0].name} does not decode greedily: a causal model must come first, whose "
            f"{BASELINE} is what all are compared with"
        )
    found = speeds(systems, [source for source, _ in pairs], protocol=protocol, progress=progress)
    shown = np.linspace(0, len(pairs) - 1, min(protocol.examples, len(pairs)), dtype=int).tolist()
    examples = [{"source": pairs[i][0], "reference": pairs[i][1], "outputs": []} for i in shown]
    rows = []
    for number, (row, outputs) in enumerate(found.rows):
        if outputs is not None:
            row = dataclasses.replace(row, **vars(judge.quality(outputs)))
            keep(row, outputs)
        rows.append(row)
        for example, i in zip(examples, shown, strict=True):
            example["outputs"].append(outputs and outputs[i])
        progress("scores", number + 1, len(found.rows))
    return Report(
        title=title,
        metric=metric,
        machine=machine(),
        data={"name": data, "fingerprint": fingerprint(corpus), "sentences": len(pairs)},
        protocol=dataclasses.asdict(protocol),
        step_cost=found.step_cost,
        rows=rows,
        examples=examples,
    )
