"""The step-cost curve: what `extend` costs at T positions, in units of reading the weights once.

    python -m benchmarks.step_cost

Batch 1, 6+6 layers, d=512, 8,000 pieces, float32. The floor is a compiled program that does nothing
but read the decoder's weights, measured in turn with the steps; what two threads of NumPy read in
the same time is printed beside it. The steps run inside of one compiled loop, each fed with what
the last one found and committing one token.
"""

import concurrent.futures
import functools
import os
import statistics
import time
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nar.core import Source
from nar.model import Transformer, TransformerConfig
from nar.ops import argmax

POSITIONS = (1, 2, 4, 8, 16, 32)
STEPS = 32


def read_seconds(halves: list[np.ndarray], pool: concurrent.futures.Executor) -> float:
    """Seconds to read all arrays once, one thread each."""
    start = time.perf_counter()
    list(pool.map(np.max, halves))
    return time.perf_counter() - start


@functools.partial(jax.jit, static_argnames="positions")
def steps(model: Transformer, source: Source, positions: int) -> jax.Array:
    """`STEPS` calls of `extend` and `logits` on `positions` tokens each."""
    context, pending = model.begin(source, 2 * STEPS)
    tokens = jnp.broadcast_to(pending[:, None], (1, positions))

    def step(_, carry):
        tokens, context = carry
        hidden, fresh = model.extend(tokens, context)
        best = argmax(model.logits(hidden))
        return best, context.commit(fresh, jnp.ones((1,), jnp.int32))

    return jax.lax.fori_loop(0, STEPS, step, (tokens, context))[0]


def step_seconds(model: Transformer, source: Source, positions: int) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    jax.block_until_ready(steps(model, source, positions))
    return (time.perf_counter() - start) / STEPS


def step_weights(model: Transformer) -> list[jax.Array]:
    """The matrices that one step reads: not the encoder's, nor those for the encoder's states."""
    products = [(model.output or model.embedding).table[...]]
    for layer in model.decoder.layers:
        assert layer.cross is not None
        mine = (layer.attention.qkv, layer.attention.out, layer.cross.query, layer.cross.out)
        products += [p.weight[...] for p in (*mine, layer.feed_forward.up, layer.feed_forward.down)]
    return products


@jax.jit
def read_all(weights: list[jax.Array]) -> jax.Array:
    """Reads every weight once."""
    return functools.reduce(jnp.maximum, [w.max() for w in weights])


def floor_seconds(weights: list[jax.Array]) -> float:
    """Seconds in which a compiled program reads the weights."""
    start = time.perf_counter()
    jax.block_until_ready(read_all(weights))
    return time.perf_counter() - start


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
    source = Source.of([list(range(7, 27))])
    weights = step_weights(model)
    threads = os.cpu_count() or 1
    size = sum(w.nbytes for w in weights)
    halves = np.array_split(np.random.default_rng(0).random(size // 4, np.float32), threads)
    seconds: dict[int, list[float]] = {t: [] for t in POSITIONS}
    floors: list[float] = []
    numpy: list[float] = []
    floor_seconds(weights)  # compiles
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for t in POSITIONS:
            step_seconds(model, source, t)  # compiles
        for _ in range(repeats):
            floors.append(statistics.median(floor_seconds(weights) for _ in range(5)))
            numpy.append(statistics.median(read_seconds(halves, pool) for _ in range(5)))
            for t in POSITIONS:
                seconds[t].append(step_seconds(model, source, t))
    for who, read in (("one compiled program", floors), (f"NumPy, {threads} threads", numpy)):
        middle = statistics.median(read)
        print(
            f"{size / 1e6:.0f} MB of weights read by {who}: {middle * 1e3:.2f} ms "
            f"[{min(read) * 1e3:.2f}-{max(read) * 1e3:.2f}], {size / middle / 1e9:.0f} GB/s"
        )
    print("  T   ms (median)   over T=1 [spread]       over the floor [spread]")
    for t in POSITIONS:
        to_one = sorted(a / b for a, b in zip(seconds[t], seconds[1], strict=True))
        to_floor = sorted(a / b for a, b in zip(seconds[t], floors, strict=True))
        one, floor = statistics.median(to_one), statistics.median(to_floor)
        print(
            f"{t:3}   {statistics.median(seconds[t]) * 1e3:9.2f}   "
            f"{one:5.2f} [{to_one[0]:.2f}-{to_one[-1]:.2f}]          "
            f"{floor:5.2f} [{to_floor[0]:.2f}-{to_floor[-1]:.2f}]"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
