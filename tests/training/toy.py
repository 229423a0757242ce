"""A training that takes seconds, for tests to use, and as a process for tests to kill."""

import hashlib
import sys
import time

import grain
import jax
import numpy as np

from nar.core import Source
from nar.data.batching import Batch
from nar.model import Transformer, TransformerConfig
from nar.objectives import CrossEntropy
from nar.training.checkpoint import named_arrays
from nar.training.loop import TrainConfig, train
from nar.training.optimizer import OptimizerConfig

OBJECTIVE = CrossEntropy()
OPTIMIZER = OptimizerConfig(learning_rate=2e-2, warmup=40)
VOCAB, EOS = 12, 3


def toy_model(**settings):
    shape = {"d_model": 16, "d_ff": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = TransformerConfig(vocab_size=VOCAB, max_positions=16, **(shape | settings))
    return Transformer(config, key=jax.random.key(1))


def toy_batch(number, rows=8, time=6):
    """Copies: the target is the source, both of some length."""
    random = np.random.default_rng(number)
    length = random.integers(2, time + 1, rows).astype(np.int32)
    place = np.arange(time)
    tokens = random.integers(7, VOCAB, (rows, time))
    tokens = np.where(
        place < length[:, None] - 1, tokens, np.where(place < length[:, None], EOS, 0)
    )
    tokens = tokens.astype(np.int32)
    return Batch(Source(tokens, length), tokens, length)


def stream(make=toy_batch):
    """Batch 0, 1, 2, ... as a Grain iterator."""
    return iter(grain.MapDataset.range(10**6).map(make).to_iter_dataset())


VALIDATION = [toy_batch(-number + 10**7) for number in range(2)]


def digest(model):
    """A hash of all parameters, bit by bit."""
    found = hashlib.sha256()
    for name, array in named_arrays(model).items():
        found.update(name.encode() + np.asarray(array).tobytes())
    return found.hexdigest()


def main(run_dir):
    """Trains with everything on; saves often and slowly enough to be killed anywhere."""

    def slow(number):
        time.sleep(0.01)
        return toy_batch(number)

    config = TrainConfig(
        steps=40,
        optimizer=OPTIMIZER,
        accumulation=2,
        log_every=3,
        checkpoint_every=2,
        validate_every=10,
        keep=3,
        average_last=2,
        seed=5,
    )
    model = train(toy_model(), OBJECTIVE, stream(slow), config, run_dir, validation=VALIDATION)
    print(digest(model))


if __name__ == "__main__":
    main(sys.argv[1])
