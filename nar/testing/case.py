"""A decoder under test, and what the points of its contract share."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nar.core import TARGET, Bundle, Decoder, Output, Source, role, row_keys
from nar.drivers import decode
from nar.errors import NarError
from nar.testing import oracles
from nar.testing.failure import broken
from nar.testing.oracles import Rows
from nar.testing.toys import Scripted

Reference = Callable[[Decoder, Any, Source], Sequence[Sequence[int]]]
"""An independent implementation: each row's tokens, EOS included where it was reached."""


@dataclasses.dataclass(kw_only=True)
class Report:
    """What was seen while a contract was checked.

    Attributes:
        compared: pairs of rows that had to be equal.
        close: those that differ, first where two choices of the model are closer than the
            tolerance: (how they were run, row).
        p_values: of the chi-square tests of a sampler, one a key, then all draws together.
        skipped: what could not be checked here, and why.
        traces: how often `step` was traced; each time a program is compiled.
        equations: of a step's program. Their product is what checking costs.
    """

    compared: int = 0
    close: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    p_values: list[float] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    traces: int = 0
    equations: int = 0


@dataclasses.dataclass
class Case:
    """A decoder under test, and what the points share.

    All batches get limits, so that one program serves those of point 5 too.
    """

    decoder: Decoder
    model: Any
    sources: Sequence[Source]
    key: Key[Array, ""]
    tolerance: float
    reference: Reference | None
    warp: oracles.Warp
    modes: Sequence[str]
    point: str = ""
    report: Report = dataclasses.field(default_factory=Report)

    def __post_init__(self):
        most = self.decoder.max_length
        self.sources = [
            s.replace(limit=jnp.asarray(oracles.limits(s, most), jnp.int32)) for s in self.sources
        ]
        self.keys = row_keys(self.key, self.sources[0].tokens.shape[0])

    def decode(self, source: Source, keys: Key[Array, " batch"], model: Any = None) -> Output:
        """As the driver does, read back."""
        model = self.model if model is None else model
        return jax.device_get(decode(self.decoder, model, source, key=keys))

    @cached_property
    def outputs(self) -> list[Output]:
        """What `decode` makes of every batch of sources."""
        return [self.decode(source, self.keys) for source in self.sources]

    def without_limit(self, source: Source) -> Source:
        """The source without its limits, where they say nothing and the decoder lets them go."""
        free = source.replace(limit=None)
        try:
            self.decoder.check(self.model, free)
        except NarError:
            return source
        return free if (np.asarray(source.limit) == self.decoder.max_length).all() else source

    def compare(
        self, how: str, source: Source, output: Output, found: Rows, rows: Any = slice(None)
    ) -> None:
        """Breaks unless the rows found are those of `output`, or differ first at a near tie."""
        found = jax.device_get(found)
        for row in np.arange(len(output.length))[rows]:
            self.report.compared += 1
            if output.length[row] == found.length[row] and np.array_equal(
                output.tokens[row], found.tokens[row]
            ):
                if found.scores is not None and output.scores is not None:
                    apart = abs(output.scores[row] - found.scores[row])
                    what = f"row {row}: score {output.scores[row]}; {how}: {found.scores[row]}"
                    self.hold(apart <= self.tolerance * max(1, output.length[row]), what)
            elif self.close(source, output, found, row):
                self.report.close.append((how, int(row)))
            else:
                here, there = (x.tokens[row, : x.length[row]].tolist() for x in (output, found))
                self.broken(f"row {row}: {here}; {how}: {there}")

    def close(self, source: Source, output: Output, found: Rows, row: int) -> bool:
        """Whether rounding alone may have made a row another."""
        ours, theirs = output.tokens[row], found.tokens[row]
        if self.decoder.lossless == "no" and output.scores is not None and found.scores is not None:
            return abs(output.scores[row] - found.scores[row]) <= self.tolerance
        if self.decoder.lossless != "greedy" or np.array_equal(ours, theirs):
            return False
        logits = np.array(oracles.teacher_forced(self.model, source, output.tokens)[row])
        place, spec = np.flatnonzero(ours != theirs)[0], role(self.model).spec
        logits[:, spec.eos] = logits[:, list(spec.ends)].max(1)  # EOS is written for all of them
        chosen = logits[place, [ours[place], theirs[place]]]
        return bool(logits[place].max() - chosen.min() <= self.tolerance)

    def hold(self, true: Any, otherwise: str) -> None:
        """Breaks unless `true`."""
        if not true:
            self.broken(otherwise)

    def broken(self, what: str) -> NoReturn:
        """Raises a ContractError."""
        broken(self.point, self.decoder, what)


def random_sources(model: Any, key: Key[Array, ""]) -> list[Source]:
    """Two batches of eight, 1 to 6 tokens long."""
    spec = role(model).spec
    tokens = [t for t in range(spec.vocab_size) if t not in (*spec.ends, spec.pad, spec.mask)]
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    lengths = [[6, 1, 3, 5, 2, 4, 6, 1], [1, 6, 4, 2, 5, 3, 1, 6]]
    return [Source.of([random.choice(tokens, n).tolist() for n in row]) for row in lengths]


def scripted(model: Any, script: np.ndarray, length: np.ndarray) -> Any:
    """The model, or a bundle's target, with a script, and a length for its length head."""
    target = Scripted(role(model), jnp.asarray(script), jnp.asarray(length))
    if isinstance(model, Bundle):
        return Bundle({**model.models, TARGET: target})
    return target
