"""One call of CTC beside greedy decoding of as many tokens, one sentence alone.

    python -m benchmarks.one_call

What it takes does not depend on the weights, which are random: 3+3 layers for CTC, d=256, 8,000
pieces, float32; EOS is never written, so that greedy writes as many tokens as it is told. The
prediction is that of reports: calls times what their positions cost on this machine.
"""

import dataclasses
import statistics
import time
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from nar.bench.measure import work_by_row
from nar.bench.step_cost import StepCosts, in_turn, up_to
from nar.core import TARGET, Decoder, Source
from nar.data.tokenizer import BLANK, EOS, MASK, PAD, SEP
from nar.decoders import CTC, Greedy
from nar.drivers import compile_decode
from nar.model import Transformer, TransformerConfig

CAUSAL = {"greedy 3-3": (3, 3), "greedy 6-1": (6, 1), "greedy 6-6": (6, 6)}


def main(
    repeats: Annotated[int, tyro.conf.arg(help="decodes of each kind, in turn")] = 60,
    length: Annotated[int, tyro.conf.arg(help="tokens of the source, and to write")] = 16,
    upsample: int = 2,
    vocab_size: int = 8000,
) -> None:
    """Prints milliseconds, and how many times as fast as each greedy one call is."""
    config = TransformerConfig(vocab_size=vocab_size, pad=PAD, eos=EOS, banned=(EOS,))
    ctc = dataclasses.replace(
        config, causal=False, bidirectional=True, upsample=upsample, mask=MASK, blank=BLANK,
        encoder_layers=3, decoder_layers=3, banned=(),
    )  # fmt: skip
    works: dict[str, tuple[Any, Decoder]] = {
        f"ctc 3-3, {upsample} places a token": (model_of(ctc), CTC(max_length=upsample * length))
    }
    for name, (encoder, decoder) in CAUSAL.items():
        shape = dataclasses.replace(config, encoder_layers=encoder, decoder_layers=decoder)
        works[name] = model_of(shape), Greedy(max_length=length)

    tokens = np.random.default_rng(0).integers(SEP + 1, vocab_size, (1, length))
    source, key = Source(jnp.asarray(tokens, jnp.int32), jnp.array([length])), jax.random.key(0)
    programs, costs, worked, measuring = {}, {}, {}, []
    for name, (model, decoder) in works.items():
        programs[name] = compile_decode(decoder, model, source, key=key)
        (work,) = work_by_row(programs[name](source, key))
        costs[name] = StepCosts(
            model,
            source=source,
            max_length=2 * length,
            positions=up_to(work[TARGET][1] / work[TARGET][0]),
        )
        worked[name] = work
        measuring += costs[name].measuring(costs[name].places(decoder, work).values())
    in_turn(measuring)
    predicted = {name: costs[name].predict(works[name][1], worked[name]) for name in works}

    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name in works:
            start = time.perf_counter()
            jax.block_until_ready(programs[name](source, key))
            spent[name].append(1e3 * (time.perf_counter() - start))
    first = next(iter(works))
    print(f"{length} tokens, batch 1")
    for name, times in spent.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(times, spent[first], strict=True))
        low, middle, high = np.percentile(ratios, (5, 50, 95))
        print(
            f"{name}: {statistics.median(times):.2f} ms, predicted {predicted[name]:.2f}; "
            f"{middle:.2f} [{low:.2f}-{high:.2f}] times one call, "
            f"predicted {predicted[name] / predicted[first]:.2f}"
        )


def model_of(config: TransformerConfig) -> Transformer:
    """Random weights."""
    return Transformer(config, key=jax.random.key(0))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
