"""Seconds to compile each decoder at the size of the demo, without a cache.

python -m benchmarks.compilation
"""

import time

import jax

from experiments.registry import GRAMMAR
from nar.core import Source
from nar.drivers import decode
from nar.model import Transformer


def main() -> None:
    """Prints a line a decoder."""
    model = Transformer(GRAMMAR.model, key=jax.random.key(0))
    source = Source.of([list(range(7, 31))] * GRAMMAR.batch_size)
    for name, decoder in GRAMMAR.make_decoders(full=True).items():
        start = time.perf_counter()
        jax.block_until_ready(decode(decoder, model, source))
        first = time.perf_counter() - start
        start = time.perf_counter()
        jax.block_until_ready(decode(decoder, model, source))
        print(f"{name:40} {first - (time.perf_counter() - start):5.2f} s")


if __name__ == "__main__":
    main()
