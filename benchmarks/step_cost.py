"""The step-cost curve: what `extend` costs at T positions, in units of reading the weights once.

    python -m benchmarks.step_cost

Batch 1, 6+6 layers, d=512, 8,000 pieces, float32. The floor is a compiled program that does nothing
but read the decoder's weights, measured in turn with the steps; what two threads of NumPy read in
the same time is printed beside it.
"""

import concurrent.futures
import os
import statistics
from typing import Annotated

import jax
import numpy as np
import tyro

from nar.bench.step_cost import seconds, step_cost, step_weights
from nar.core import Source
from nar.model import Transformer, TransformerConfig


def main(
    repeats: Annotated[int, tyro.conf.arg(help="measurements of each, in turn")] = 15,
    layers: int = 6,
    d_model: int = 512,
    vocab_size: int = 8000,
) -> None:
    """Prints the curve."""
    model = Transformer(
        TransformerConfig(
            vocab_size=vocab_size, d_model=d_model, d_ff=4 * d_model,
            encoder_layers=layers, decoder_layers=layers,
        ),
        key=jax.random.key(0),
    )  # fmt: skip
    threads = os.cpu_count() or 1
    size = sum(w.nbytes for w in step_weights(model))
    parts = np.array_split(np.random.default_rng(0).random(size // 4, np.float32), threads)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        reads: list[float] = []

        def read(stage: str, done: int, total: int) -> None:
            reads.append(
                statistics.median(
                    1e3 * seconds(lambda: list(pool.map(np.max, parts))) for _ in range(5)
                )
            )

        curve = step_cost(
            model, Source.of([list(range(7, 27))]), max_length=64, repeats=repeats, progress=read
        )
    for who, ms in (
        ("one compiled program", curve.floor_ms),
        (f"NumPy, {threads} threads", statistics.median(reads)),
    ):
        assert ms is not None
        print(
            f"{size / 1e6:.0f} MB of weights read by {who}: {ms:.2f} ms, {size / ms / 1e6:.0f} GB/s"
        )
    print("  T   ms (median)   over T=1 [90 % of repeats]   over the floor")
    for t, ms, ratio, (low, high), floors in zip(
        curve.positions, curve.ms, curve.over_one, curve.over_one_spread, curve.over_floor,
        strict=True,
    ):  # fmt: skip
        print(f"{t:3}   {ms:11.2f}   {ratio:8.2f} [{low:.2f}-{high:.2f}]   {floors:20.2f}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
