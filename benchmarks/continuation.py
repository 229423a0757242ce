"""Continuations by decoders that write what greedy writes, beside transformers' own.

    python -m benchmarks.continuation --model DIR

Twenty beginnings of stories, 128 tokens each, batch 1, in turn.
"""

import os
import pathlib

import numpy as np
import tyro

import nar
from benchmarks.peers import Peer, in_turn, nar_decoder, show, transformers_greedy
from nar.bench.measure import mean_work, work_by_row
from nar.bench.step_cost import StepCosts, up_to

PROMPTS = (
    "Once upon a time", "One day, a little boy named Tim", "Lily and her mom went to the park",
    "The cat was very sad", "Ben liked to play with his toy car",
    "There was a big dog who lived in a small house", "One sunny day, a girl named Sue",
    "Tom and Anna were best friends", "A bird flew over the tree", "The old man had a magic hat",
    "Mia wanted to bake a cake", "Sam found a shiny rock", "The little fish swam in the sea",
    "Jack was a brave boy", "It was a cold winter night", "Lucy loved her red ball",
    "The bunny hopped into the garden", "Max and his dad went fishing",
    "A tiny ant saw a big leaf", "The princess lived in a tall castle",
)  # fmt: skip
DECODERS = (
    "greedy",
    "jacobi:block=4",
    "lookahead:ngram=5,window=7,candidates=7",
    "lookahead:ngram=4,window=5,candidates=5",
    "lookahead:ngram=7,window=20,candidates=20",
    "prompt-lookup:guesses=5,ngram=2",
    "prompt-lookup:guesses=5,ngram=3",
    "prompt-lookup:guesses=10,ngram=3",
)


def main(
    model: pathlib.Path,
    decoders: tuple[str, ...] = DECODERS,
    tuned: pathlib.Path | None = None,
    max_length: int = 128,
    repeats: int = 5,
) -> None:
    """Prints tokens a call, what that predicts, and what the clock says."""
    translator = nar.load(model)
    sources = translator.encode(PROMPTS)
    names = [*decoders, *([str(tuned)] if tuned else [])]
    made = {name: translator.make_decoder(name, max_length) for name in names}

    outputs = {}
    for name, decoder in made.items():
        outputs[name] = nar.decode(decoder, translator.model, nar.Source.of(sources))
    work = {name: mean_work(work_by_row(output)) for name, output in outputs.items()}
    costs = StepCosts(
        translator.model,
        source=nar.Source.of(sources[:1]),
        max_length=max_length,
        positions=up_to(max(n / calls for one in work.values() for calls, n in one.values())),
    )
    predicted = {name: costs.predict(made[name], work[name]) for name in names}
    for name, output in outputs.items():
        calls = int(output.stats.live.sum())
        print(
            f"{name:45} {calls:5} calls, {int(output.length.sum()) / calls:.2f} tokens a call, "
            f"predicted {predicted[names[0]] / predicted[name]:.2f}, "
            f"= greedy {np.mean((output.tokens == outputs[names[0]].tokens).all(1)):.0%}"
        )
    peers: list[Peer] = [nar_decoder(model, name, max_length) for name in names]
    cores = os.cpu_count() or 1
    for threads in sorted({1, cores}):
        peers += transformers_greedy(model, threads, max_length)
        peers += transformers_greedy(model, threads, max_length, prompt_lookup_num_tokens=5)
    single = [[source] for source in sources]
    show(f"{model.name}: batch 1", *in_turn(peers, single, repeats), peers[0].name)


if __name__ == "__main__":
    tyro.cli(main)
