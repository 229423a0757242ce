"""Writes `golden/ctc.npz`: what torch makes of random logits and labels, in float64.

pip install torch
python -m tests.objectives.make_golden
"""

import pathlib

import numpy as np
import torch
from torch.nn.functional import ctc_loss, log_softmax

GOLDEN = pathlib.Path(__file__).parent / "golden" / "ctc.npz"
ROWS, PLACES, LABELS, VOCAB, BLANK = 16, 24, 12, 17, 5


def main() -> None:
    """Writes the file."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, PLACES, VOCAB)) * rng.choice([0.3, 3, 12], (ROWS, 1, 1))
    tokens = np.delete(np.arange(VOCAB), BLANK)
    labels = np.where(rng.random((ROWS, 1)) < 0.5, rng.choice(tokens, (ROWS, LABELS)), 7)
    labels[::3] = rng.choice(tokens[-2:], labels[::3].shape)
    count = rng.integers(0, LABELS + 1, ROWS)
    places = rng.integers(6, PLACES + 1, ROWS)
    logits = logits.astype(np.float32)
    given = {"logits": logits, "places": places, "labels": labels, "count": count, "blank": BLANK}

    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    scores = log_softmax(leaf, -1).transpose(0, 1)
    others = [torch.tensor(given[name]) for name in ("labels", "places", "count")]
    loss = ctc_loss(scores, *others, blank=BLANK, reduction="none")
    ctc_loss(scores, *others, blank=BLANK, reduction="sum", zero_infinity=True).backward()
    assert leaf.grad is not None
    found = {"loss": loss.detach().numpy(), "gradient": leaf.grad.numpy().astype(np.float32)}
    np.savez_compressed(GOLDEN, **given, **found)
    print(f"{np.isinf(found['loss']).sum()} of {ROWS} impossible; {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
