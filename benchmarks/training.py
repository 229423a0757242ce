"""Target tokens a second in training.

    python -m benchmarks.training

3+3 layers, d=256, 8,000 pieces, float32, dropout 0.1, label smoothing, Adam; batches of made-up
sentences of one length, so that every position is a real one.
"""

import statistics
import time
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nar.core import Source
from nar.data.batching import Batch
from nar.model import Transformer, TransformerConfig
from nar.objectives import CrossEntropy
from nar.training import TrainConfig
from nar.training.loop import initial_state, update


def main(
    repeats: Annotated[int, tyro.conf.arg(help="updates that are timed")] = 10,
    rows: int = 128,
    length: int = 16,
    dropout: float = 0.1,
    vocab_size: int = 8000,
) -> None:
    """Prints target tokens a second."""
    model = Transformer(
        TransformerConfig(vocab_size=vocab_size, dropout=dropout), key=jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    lengths = jnp.full((rows,), length)

    def tokens():
        return jnp.asarray(rng.integers(7, vocab_size, (rows, length)), jnp.int32)

    batch = Batch(Source(tokens(), lengths), tokens(), lengths)
    config = TrainConfig(steps=1000)
    objective = CrossEntropy()
    state = initial_state(model, config)
    seconds = []
    for number in range(repeats + 2):
        start = time.perf_counter()
        state, metrics = update(state, batch, np.uint32(number), objective=objective, config=config)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)
    rates = sorted(rows * length / s for s in seconds[2:])
    print(
        f"{statistics.median(rates):.0f} target tokens a second [{rates[0]:.0f}-{rates[-1]:.0f}], "
        f"{rows} x {length} a batch; compiled in {seconds[0]:.1f} s"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
