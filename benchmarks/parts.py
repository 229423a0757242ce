"""Parts of an unattended run: one after the other, within a time, whatever becomes of each."""

import contextlib
import dataclasses
import gc
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NoReturn

WIDEST = 300
"""Letters of an error that are kept."""
BELIEF = 60
"""So many seconds count as if they had been as expected: one short part proves little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Something to measure.

    Attributes:
        name: unlike the others'.
        seconds: that it takes, about.
        run: given what was found before it, by name; what it returns is found.
        missing: what it lacks, and so it is left out; None: nothing.
    """

    name: str
    seconds: float
    run: Callable[[Mapping[str, Any]], Any]
    missing: str | None = None


Status = Literal["not reached", "measured", "left out", "skipped", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a part.

    Attributes:
        name: the part's.
        status: "not reached" yet; "measured"; "left out" for what it lacks; "skipped" for want of
            time; or "failed".
        why: it was not measured, in one line.
        seconds: that it took.
        found: what was measured.
    """

    name: str
    status: Status = "not reached"
    why: str | None = None
    seconds: float | None = None
    found: Any = None


class Stopped(BaseException):
    """SIGTERM came."""


class OutOfTime(BaseException):
    """The time was over in the middle of a part."""


def run_parts(
    parts: Sequence[Part], seconds: float, save: Callable[[list[Outcome]], None]
) -> list[Outcome]:
    """Runs parts in order; the ones that will not fit in what is left of the time are skipped.

    Args:
        parts: what to run.
        seconds: for all of them. A part that is not done by then is given up.
        save: given all outcomes so far, one a part: before the first part, and after each.

    Raises:
        Stopped: SIGTERM came; what was found before is saved by then.
    """
    end = time.monotonic() + seconds
    outcomes = {part.name: Outcome(name=part.name) for part in parts}
    save([*outcomes.values()])
    with _raising(signal.SIGTERM, Stopped):
        for part in parts:
            left = end - time.monotonic()
            expected = part.seconds * _pace(parts, outcomes)
            if part.missing:
                outcome = Outcome(name=part.name, status="left out", why=part.missing)
            elif expected > left:
                why = f"it takes about {expected:.0f} s, and {max(left, 0):.0f} s are left"
                outcome = Outcome(name=part.name, status="skipped", why=why)
            else:
                outcome = _attempt(part, outcomes, left)
            outcomes[part.name] = outcome
            save([*outcomes.values()])
    return [*outcomes.values()]


def _pace(parts: Sequence[Part], outcomes: Mapping[str, Outcome]) -> float:
    """How much longer than expected the parts took that were measured, and `BELIEF` seconds."""
    done = [part for part in parts if outcomes[part.name].status == "measured"]
    spent = sum(outcomes[part.name].seconds or 0 for part in done)
    return (BELIEF + spent) / (BELIEF + sum(part.seconds for part in done))


def _attempt(part: Part, outcomes: Mapping[str, Outcome], left: float) -> Outcome:
    """Runs a part: its error, whatever it is, is its own."""
    known = {name: one.found for name, one in outcomes.items() if one.status == "measured"}
    start, why, found = time.monotonic(), None, None
    try:
        with _alarm(left):
            found = part.run(known)
    except OutOfTime:
        why = "the time was over before it was done"
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:WIDEST]
    gc.collect()  # an error holds what was there when it was raised: arrays that fill the device
    return Outcome(
        name=part.name,
        status="failed" if why else "measured",
        why=why,
        seconds=time.monotonic() - start,
        found=found,
    )


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises OutOfTime where it is used for longer."""
    with _raising(signal.SIGALRM, OutOfTime):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def _raising(number: signal.Signals, error: type[BaseException]) -> Iterator[None]:
    """Raises an error where a signal comes."""

    def stop(*_: object) -> NoReturn:
        raise error

    before = signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, before)
