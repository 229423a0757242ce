"""Is the context updated in place? Temporary memory of a step, and copies in the compiled loop.

    python -m benchmarks.memory

Compiles `decode` and looks for copies of a layer's keys or values inside of the loop.
"""

import re
from collections.abc import Collection

import jax

from nar import drivers
from nar.core import Source
from nar.decoders import make
from nar.model import Transformer, TransformerConfig


def main(rows: int = 8, max_length: int = 128) -> None:
    """Prints a line a decoder."""
    config = TransformerConfig(vocab_size=8000)
    model = Transformer(config, key=jax.random.key(0))
    source = Source.of([list(range(7, 27))] * rows)
    for name in ("greedy", "jacobi:block=8", "gauss-seidel-jacobi:block=5"):
        decoder = make(name, max_length=max_length)
        state = jax.eval_shape(drivers._init, decoder, model, source, jax.random.key(0))
        parts = jax.tree.leaves((state.carry.context.keys, state.carry.context.values))
        context = sum(part.size * part.dtype.itemsize for part in parts)
        step = drivers._step.lower(decoder, model, state).compile()
        memory = step.memory_analysis()
        assert memory is not None
        whole = drivers._decode.lower(decoder, model, source, jax.random.key(0)).compile()
        copies = copies_in_loops(whole.as_text() or "", {part.shape for part in parts})
        print(
            f"{name:30} a step: {memory.temp_size_in_bytes / 1e6:6.2f} MB temporary, "
            f"{memory.alias_size_in_bytes / 1e6:6.2f} MB of state in place, "
            f"{context / 1e6:.2f} MB of it keys and values, copied {copies} times in the loop"
        )


def copies_in_loops(hlo: str, shapes: Collection[tuple[int, ...]]) -> int:
    """Copies of arrays of those shapes in computations that a while loop runs."""
    copy = "|".join(re.escape(",".join(map(str, shape))) for shape in shapes)
    bodies = set(re.findall(r"body=%?([\w.\-]+)", hlo))
    count, inside = 0, False
    for line in hlo.splitlines():
        if line and not line.startswith((" ", "}")):
            name = line.split("(")[0].replace("ENTRY", "").strip().lstrip("%").split(" ")[0]
            inside = name in bodies
        elif inside and re.search(rf"= f32\[(?:{copy})\]\S* copy\(", line):
            count += 1
    return count


if __name__ == "__main__":
    main()
