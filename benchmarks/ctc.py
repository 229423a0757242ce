"""The share of CTC's loss in a training step.

    python -m benchmarks.ctc

3+3 layers, d=256, 8,000 pieces, float32, dropout 0.1, Adam; made-up sentences of one length, with
as many labels as source tokens. The loss is all that follows the logits, forward and backward: a
step is compared with one whose loss is the logits' squared norm, which costs next to nothing.
"""

import dataclasses
import statistics
import time
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nar.core import Source
from nar.data.batching import Batch
from nar.data.tokenizer import BLANK, EOS, MASK, SEP
from nar.model import Transformer, TransformerConfig
from nar.objectives import CTC
from nar.training import TrainConfig
from nar.training.loop import initial_state, update


@dataclasses.dataclass(frozen=True)
class SquaredNorm:
    """Of the logits of a canvas where nothing is known."""

    needs = None

    def __call__(self, model, batch, key, progress=1.0):
        encode, decode = jax.random.split(key)
        context, _ = model.begin(batch.source, 0, dropout=encode)
        rows, time = batch.source.tokens.shape
        canvas = jnp.full((rows, model.spec.upsample * time), MASK)
        hidden = model.fill(canvas, context, canvas == MASK, dropout=decode)
        loss = jnp.square(model.logits(hidden)).sum()
        return loss, {"tokens": jnp.array(canvas.size)}


OBJECTIVES = {
    "squared norm": SquaredNorm(),
    "CTC": CTC(),
    "CTC with glancing": CTC(glance=(0.5, 0.3)),
}


def main(
    repeats: Annotated[int, tyro.conf.arg(help="updates of each kind that are timed")] = 10,
    rows: int = 64,
    length: int = 20,
    upsample: int = 2,
    vocab_size: int = 8000,
) -> None:
    """Prints what a step takes, and the share of it that the squared norm's step does not take."""
    config = TransformerConfig(
        vocab_size=vocab_size,
        causal=False,
        bidirectional=True,
        upsample=upsample,
        mask=MASK,
        blank=BLANK,
    )
    rng, training = np.random.default_rng(0), TrainConfig(steps=1000)
    source, target = jnp.asarray(rng.integers(SEP + 1, vocab_size, (2, rows, length)), jnp.int32)
    target = jnp.pad(target, ((0, 0), (0, 1)), constant_values=EOS)
    lengths = jnp.full((rows,), length)
    batch = Batch(Source(source, lengths), target, lengths + 1)
    model = Transformer(config, key=jax.random.key(0))
    states = {name: initial_state(model, training) for name in OBJECTIVES}
    seconds = {name: [] for name in OBJECTIVES}
    for number in range(repeats + 2):
        for name, objective in OBJECTIVES.items():
            start = time.perf_counter()
            job = {"objective": objective, "config": training}
            states[name], sums = update(states[name], batch, np.uint32(number), **job)
            jax.block_until_ready(sums)
            seconds[name].append(time.perf_counter() - start)
    base = seconds["squared norm"][2:]
    print(f"{rows} rows of {upsample * length} places and {length} labels")
    for name, times in seconds.items():
        shares = sorted(1 - b / t for b, t in zip(base, times[2:], strict=True))
        print(
            f"{name}: {statistics.median(times[2:]):.3f} s a step, "
            f"{statistics.median(shares):.1%} of it [{shares[0]:.1%}-{shares[-1]:.1%}] is the loss"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
