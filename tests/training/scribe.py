"""A teacher without a model, and a process in which it works: slowly, so that it can be killed."""

import pathlib
import sys
import time

import numpy as np

import nar.lines
from nar.decoders import Greedy
from nar.results import Result
from nar.training.distillation import distill

CORPORA = {
    "train": [(" ".join("abcdefgh"[: 1 + i * 5 % 8]) if i % 7 else " ", "?") for i in range(40)],
    "valid": [(text, "?") for text in ("z y", "x", "w v u")],
}
DECODER = Greedy(max_length=9)


class Scribe:
    """Writes the letters of a source in capitals, behind its line's number; nothing for "a".

    Args:
        weights: its id.
        seconds: that it takes for a batch.
        patience: batches after which it fails; None: never.
    """

    def __init__(self, weights="abc", seconds=0.0, patience=None):
        self.weights, self.seconds, self.patience, self.done = weights, seconds, patience, []

    def room(self, decoder):
        return None

    def encode(self, texts):
        return [[ord(c) for c in text.split()] + [3] for text in texts]

    def outputs(self, sources, decoder, *, batch_size, key, numbers, stop, nbest):
        order = np.argsort([-len(source) for source in sources], kind="stable").tolist()
        for i in range(0, len(order), batch_size):
            if len(self.done) == self.patience:
                raise InterruptedError
            places = order[i : i + batch_size]
            self.done.append([numbers[place] for place in places])
            time.sleep(self.seconds)
            rows = ("".join(map(chr, sources[place][:-1])) for place in places)
            # What it writes depends on who is in the batch, as a model's rounding may.
            together = min(self.done[-1])
            found = zip(places, rows, strict=True)
            texts = ["" if x == "a" else f"{numbers[p]}{x.upper()}\n{together}" for p, x in found]
            yield places, [Result(text=text) for text in texts]


if __name__ == "__main__":
    nar.lines.WINDOW = 3
    distill(Scribe(seconds=0.1), CORPORA, DECODER, pathlib.Path(sys.argv[1]), batch_size=4)
