"""Target tokens a second in training, by objective.

    python -m benchmarks.training
    python -m benchmarks.training --objectives causal mask-predict one-shot

3+3 layers, d=256, 8,000 pieces, float32, dropout 0.1, label smoothing, Adam; batches of made-up
sentences of one length, so that every position is a real one. Objectives take turns.
"""

import statistics
import time
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nar.core import Source
from nar.data.batching import Batch
from nar.data.tokenizer import MASK, SEP
from nar.model import Transformer, TransformerConfig
from nar.objectives import CrossEntropy, Masked
from nar.training import TrainConfig
from nar.training.loop import initial_state, update

Name = Literal["causal", "mask-predict", "one-shot", "one-shot-glancing"]
CANVAS = {"causal": False, "bidirectional": True, "mask": MASK, "length_classes": 256}
OBJECTIVES = {
    "causal": (CrossEntropy(), {}),
    "mask-predict": (Masked(), CANVAS),
    "one-shot": (Masked(masking="all"), CANVAS),
    "one-shot-glancing": (Masked(masking="all", glance=(0.5, 0.3)), CANVAS),
}


def main(
    objectives: tuple[Name, ...] = ("causal",),
    repeats: Annotated[int, tyro.conf.arg(help="updates of each that are timed")] = 10,
    rows: int = 128,
    length: int = 16,
    dropout: float = 0.1,
    vocab_size: int = 8000,
) -> None:
    """Prints target tokens a second, and the time of a step over the first objective's."""
    rng, config = np.random.default_rng(0), TrainConfig(steps=1000)
    lengths = jnp.full((rows,), length)
    source, target = jnp.asarray(rng.integers(SEP + 1, vocab_size, (2, rows, length)), jnp.int32)
    batch = Batch(Source(source, lengths), target, lengths)

    def start(name: Name):
        shape = TransformerConfig(vocab_size=vocab_size, dropout=dropout, **OBJECTIVES[name][1])
        return initial_state(Transformer(shape, key=jax.random.key(0)), config)

    states = {name: start(name) for name in objectives}
    seconds = {name: [] for name in objectives}
    for number in range(repeats + 2):
        for name in objectives:
            begin, objective = time.perf_counter(), OBJECTIVES[name][0]
            job = {"objective": objective, "config": config}
            states[name], metrics = update(states[name], batch, np.uint32(number), **job)
            jax.block_until_ready(metrics)
            seconds[name].append(time.perf_counter() - begin)
    for name, (compiled, _, *timed) in seconds.items():
        rates = sorted(rows * length / s for s in timed)
        ratios = sorted(np.divide(timed, seconds[objectives[0]][2:]))
        print(
            f"{name}: {statistics.median(rates):.0f} target tokens a second "
            f"[{rates[0]:.0f}-{rates[-1]:.0f}], a step {statistics.median(ratios):.2f} "
            f"[{ratios[0]:.2f}-{ratios[-1]:.2f}] times {objectives[0]}'s; compiled in "
            f"{compiled:.1f} s; {rows} x {length} a batch"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
