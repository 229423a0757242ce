"""The contract of a decoder, in seven points."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nar.core import NO_EOS, TARGET, Decoder, Output, Source, role, row_keys
from nar.drivers import stream, trace
from nar.errors import NarError
from nar.testing import oracles
from nar.testing.case import Case, Reference, Report, random_sources, scripted
from nar.testing.failure import named
from nar.testing.modes import MODES, counting, watch
from nar.testing.oracles import Rows
from nar.testing.toys import NO_NUMBER


def check_decoder(
    decoder: Decoder,
    model: Any,
    *,
    sources: Sequence[Source] | None = None,
    reference: Reference | None = None,
    warp: oracles.Warp = oracles.log_softmax,
    tolerance: float = 1e-4,
    key: Key[Array, ""] | None = None,
    points: Collection[int] = range(1, 8),
    modes: Collection[str] = tuple(MODES),
) -> Report:
    """Holds a decoder to its contract, on a model that should be tiny.

    Args:
        decoder: any decoder, yours too.
        model: what it decodes; a `Bundle` where it needs several models.
        sources: batches of one shape; random ones by default.
        reference: an independent implementation; a decoder that is not lossless must have one.
        warp: for samplers, the log-probabilities sampled from, computed in NumPy from the logits.
        tolerance: how far two logits of one choice may be apart, by rounding alone.
        key: for the sources and the decoder.
        points: which points to check.
        modes: in which ways point 4 runs the decoder; see `nar.testing.modes`.

    Raises:
        ContractError: the decoder, the point that it breaks, the row, and what was seen.
        NarError: the contract cannot be checked with these arguments.
    """
    key = jax.random.key(0) if key is None else key
    sources = random_sources(model, key) if sources is None else sources
    spy = counting(type(decoder))(**{f.name: getattr(decoder, f.name) for f in fields(decoder)})
    case = Case(spy, model, sources, key, tolerance, reference, warp, tuple(modes))
    before = type(spy).traces
    for number, point in enumerate(POINTS, start=1):
        if number in points:
            case.point = f"point {number} of the contract ({point.__name__})"
            point(case)
    case.report.traces = type(spy).traces - before
    return case.report


def lossless(case: Case) -> None:
    """1. The output is what `decoder.lossless` says it is."""
    decoder, model = case.decoder, case.model
    if decoder.lossless == "distribution":
        return sampled(case)
    if decoder.lossless == "no" and case.reference is None:
        raise NarError(f"{decoder!r} is not lossless: pass an independent reference=")
    for source, output in zip(case.sources, case.outputs, strict=True):
        if decoder.lossless == "greedy":
            oracle = oracles.greedy(model, source, decoder.max_length)
            case.compare("greedy, by hand", source, output, oracle)
        elif case.reference is not None:
            rows = case.reference(decoder, model, source)
            for row, (length, wanted) in enumerate(zip(output.length, rows, strict=True)):
                found = output.tokens[row, :length].tolist()
                what = f"row {row}: {found}; the reference gives {list(wanted)}"
                case.hold(found == list(wanted), what)
            case.report.compared += len(rows)


def independent(case: Case) -> None:
    """2. A row's result depends on nothing else: not on batch, order, neighbours or padding."""
    source, output = case.sources[0], case.outputs[0]
    batch, width = source.tokens.shape
    rows = np.arange(batch)

    past = np.arange(width) >= np.asarray(source.length)[:, None]
    noisy = source.replace(tokens=jnp.where(past, 1, source.tokens))
    found = case.decode(jax.tree.map(lambda x: x[::-1], noisy), case.keys[::-1])
    found = jax.tree.map(lambda x: x[::-1], Rows.of(found))
    case.compare("in reverse order, with other padding", source, output, found)

    other = jax.tree.map(lambda x: x[::-1], case.sources[-1])
    for odd in (0, 1):
        here = jax.tree.map(lambda a, b, odd=odd: a.at[odd::2].set(b[odd::2]), other, source)
        found = Rows.of(case.decode(here, case.keys))
        case.compare("among other rows", source, output, found, rows % 2 == odd)

    wide = source.replace(tokens=jnp.pad(source.tokens, ((0, 0), (0, 3)), constant_values=1))
    for row in rows:
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], wide)
        found = Rows.of(case.decode(case.without_limit(alone), case.keys[row : row + 1]))
        found = jax.tree.map(lambda x: np.broadcast_to(x, (batch, *x.shape[1:])), found)
        case.compare("alone, three places wider", source, output, found, rows == row)


def one_trace(case: Case) -> None:
    """3. `step` is traced once for all steps and contents, and keeps every shape and dtype."""
    again: Any = replace(case.decoder)
    case.hold(hash(again) == hash(case.decoder), "equal ones have different hashes")
    arguments = (case.model, case.sources[0], case.keys)
    first = jax.eval_shape(lambda m, s, k: case.decoder.init(m, s, key=k), *arguments)
    program, second = jax.make_jaxpr(case.decoder.step, return_shape=True)(case.model, first)
    case.report.equations, second = equations(program.jaxpr), second.replace(view=None)
    same = jax.tree.structure(first) == jax.tree.structure(second)
    case.hold(same, f"step turns {jax.tree.structure(first)} into {jax.tree.structure(second)}")
    for (path, a), b in zip(jax.tree.leaves_with_path(first), jax.tree.leaves(second), strict=True):
        name = jax.tree_util.keystr(path)
        case.hold(named(a) == named(b), f"step turns state{name} from {named(a)} into {named(b)}")

    before = type(again).traces
    for source in case.sources:
        for _ in stream(again, case.model, source, key=case.keys):
            pass
    times = type(again).traces - before
    case.hold(times <= 1, f"step was traced {times} times for one shape")


def drivers_agree(case: Case) -> None:
    """4. However it is run - drivers, eager, devices, transformations - the result is the same."""
    source, output = case.sources[0], case.outputs[0]
    for name in case.modes:
        if name == "pmap" and not hasattr(jax, "pmap"):
            case.report.skipped.append("pmap: this JAX has none")
            continue
        found = MODES[name](case.decoder, case.model, source, case.keys)
        if isinstance(found, Rows):
            case.compare(f"by {name}", source, output, found)
            continue
        case.compare(f"by {name}", source, output, Rows.of(found))
        theirs = jax.tree.leaves(found.stats)
        for (path, ours), there in zip(
            jax.tree.leaves_with_path(output.stats), theirs, strict=True
        ):
            what = f"stats{jax.tree_util.keystr(path)} is {ours} by decode, {there} by {name}"
            case.hold(np.array_equal(ours, there), what)


class Edge(NamedTuple):
    """Where a row's script has its EOS, how much it may write, and where NaN is, if anywhere."""

    end: int
    limit: int
    lost: int | None = None


def edges(case: Case) -> None:
    """5. EOS and limits cut where they must, and nothing follows; so does NaN where it decides.

    A length head says where EOS comes, or else that every place is taken: then EOS is on the
    canvas. Of a model that upsamples, an output is not longer than its canvas. A row that meets NaN
    says so, and keeps what it wrote before; its neighbours do not notice.
    """
    most, target = case.decoder.max_length, role(case.model)
    spec = target.spec
    mid, never = most // 2, 2 * most
    wanted = [Edge(end, most) for end in (0, 1, mid, most - 1, most, never)]
    wanted += [Edge(n + late, n) for n in (1, 2, mid, most - 1) for late in (-1, 0, never)]
    wanted += [Edge(never, most, lost) for lost in (0, most - 1)]
    wanted += [Edge(mid, most, mid + late) for late in (-1, 1)]
    wanted += [Edge(never, mid, lost) for lost in (1, mid)]
    if spec.eos == NO_EOS:
        wanted = [edge._replace(end=never) for edge in wanted]
    wanted = [e for e in dict.fromkeys(wanted) if 1 <= e.limit <= most and (e.lost or 0) >= 0]
    special = {*spec.ends, spec.pad}
    if spec.bidirectional:
        start = np.asarray(target.begin(case.sources[0], 0)[1])
        special |= {spec.mask, spec.blank, *start.tolist()}
    ordinary = [t for t in range(spec.vocab_size) if t not in special]
    batch = case.sources[0].tokens.shape[0]
    short = case.sources[0].replace(length=jnp.ones_like(case.sources[0].length))
    starts, heads = range(0, len(wanted), batch), (None, most) if spec.length_head else (None,)
    for source, start, head in itertools.product((case.sources[0], short), starts, heads):
        room = spec.upsample * np.asarray(source.length) if spec.upsample else [never] * batch
        rows = [wanted[(start + i) % len(wanted)] for i in range(batch)]
        rows = [e._replace(end=min(e.end, n)) for e, n in zip(rows, room, strict=True)]
        script = np.resize(ordinary, (batch, 3 * most))
        for row, (end, _, lost) in enumerate(rows):
            script[row, end::2] = spec.eos
            if lost is not None:
                script[row, lost] = NO_NUMBER
        source = source.replace(limit=jnp.array([e.limit for e in rows], jnp.int32))
        said = np.array([e.end if head is None else head for e in rows])
        output = case.decode(source, case.keys, scripted(case.model, script, said))
        for row, edge in enumerate(rows):
            cut_right(case, source, output, row, edge, script[row].tolist())


def cut_right(
    case: Case, source: Source, output: Output, row: int, edge: Edge, script: list[int]
) -> None:
    """Breaks unless a row ends where it must."""
    end, limit, lost = edge
    meets, length = lost is not None and lost < min(end, limit), min(end + 1, limit)
    found, failed = output.tokens[row].tolist(), output.failed is not None and output.failed[row]
    searches = case.decoder.lossless == "no"  # or has a canvas: it may look behind the end, too
    right = failed == meets or (searches and failed and lost is not None)
    if lost is not None and (failed or meets):
        length = min(lost, int(output.length[row])) if searches else lost
    wanted = [*script[:length], *[role(case.model).spec.pad] * (len(found) - length)]
    nan = "" if lost is None else f", NaN at {lost}"
    case.hold(
        right and output.length[row] == length and found == wanted,
        f"row {row}, source of {source.length[row]} tokens, limit {limit}, EOS at {end}{nan}: "
        f"length {output.length[row]}, tokens {found}, failed={bool(failed)}; right are {length}, "
        f"{wanted}, failed={meets}",
    )


def stats_add_up(case: Case) -> None:
    """6. `stats` count what was done, and a lossless decoder never needs more calls than greedy."""
    decoder, source, hold = case.decoder, case.sources[0], case.hold
    output, steps = jax.device_get(trace(decoder, case.model, source, key=case.keys))
    written, stats, most = steps.length[-1], output.stats, decoder.max_steps
    calls, live, accepted = stats.calls[TARGET], stats.live, stats.accepted
    total = (accepted * np.arange(len(accepted))).sum()
    grown = np.diff(steps.length, axis=0)
    hold(steps.done[-1].all(), f"rows {np.flatnonzero(~steps.done[-1])} not done in {most} steps")
    hold((grown >= 0).all(), "a length shrinks")
    hold(not (steps.done[:-1] & ~steps.done[1:]).any(), "a row that was done goes on")
    hold(not grown[steps.done[:-1]].any(), "a row that was done grows")
    hold(calls <= most, f"{calls} calls; max_steps={most}")
    hold((live <= calls).all(), f"live={live} of {calls} calls")
    hold(live.sum() == accepted.sum(), f"live={live}, but accepted={accepted}")
    hold(total == written.sum(), f"accepted={accepted} is not the lengths {written}")
    if decoder.streams or decoder.lossless != "no":
        kept = np.arange(decoder.max_length) < steps.length[..., None]
        changed = (steps.tokens != output.tokens) & kept
        hold(not changed.any(), "a token that was written changes, which `streams` denies")
    if decoder.lossless != "no":
        hold((live <= written).all(), f"live={live} calls; greedy needs {written}")

    model, watched = watch(case.model, decoder.needs)
    with jax.disable_jit():  # loops inside of a step are walked through
        first = jax.eval_shape(lambda s, k: decoder.init(model, s, key=k), source, case.keys)
        begun = {name: part.calls.copy() for name, part in watched.items()}
        jax.eval_shape(lambda state: decoder.step(model, state), first)
    for name, part in watched.items():
        once, each = begun[name], part.calls[len(begun[name]) :]
        stated, made = stats.calls.get(name), len(once) + live.max() * len(each)
        hold(stated == made, f"calls[{name!r}] is {stated}; {made} were made")
        stated, scored = stats.positions[name], (sum(once) + live * sum(each)) // len(live)
        same = np.array_equal(stated, scored)
        hold(same, f"positions[{name!r}] is {stated}; scored were {scored}")


def pure(case: Case) -> None:
    """7. Model, source and keys stay bit-identical, and the same keys give the same result."""
    source, output = case.sources[0], case.outputs[0]
    given = {"model": case.model, "source": source, "keys": jax.random.key_data(case.keys)}
    before = jax.tree.map(np.array, given)
    for _ in stream(case.decoder, case.model, source, key=case.keys):
        pass
    again = case.decode(source, case.keys)
    case.hold(np.array_equal(again.tokens, output.tokens), "the same keys gave another result")
    for (path, x), was in zip(
        jax.tree.leaves_with_path(given), jax.tree.leaves(before), strict=True
    ):
        lost = isinstance(x, jax.Array) and x.is_deleted()
        what = f"{jax.tree_util.keystr(path)} was changed"
        case.hold(not lost and np.asarray(x).tobytes() == was.tobytes(), what)

    others = [row_keys(jax.random.fold_in(case.key, i), len(case.keys)) for i in range(8)]
    if case.decoder.lossless == "distribution":
        equal = (np.array_equal(case.decode(source, k).tokens, output.tokens) for k in others)
        case.hold(not all(equal), "nine keys gave one sample")
    else:
        found = case.decode(source, others[0])
        case.compare("with other keys", source, output, Rows.of(found))


def equations(program: Any) -> int:
    """The number of a jaxpr's equations, with those of the programs within."""
    leaves = jax.tree.leaves([[*equation.params.values()] for equation in program.eqns])
    within = (getattr(leaf, "jaxpr", leaf) for leaf in leaves)  # some are closed
    return len(program.eqns) + sum(equations(x) for x in within if hasattr(x, "eqns"))


POINTS = (lossless, independent, one_trace, drivers_agree, edges, stats_add_up, pure)


def sampled(case: Case, draws: int = 2048, keys: int = 4, threshold: float = 1e-4) -> None:
    """Chi-square tests of the distribution of outputs of up to four tokens, over several keys."""
    spec, most = role(case.model).spec, 1
    while most < min(4, case.decoder.max_length) and spec.vocab_size ** (most + 1) <= 4096:
        most += 1
    source = jax.tree.map(lambda x: jnp.repeat(x[:1], draws, axis=0), case.sources[0])
    source = source.replace(limit=jnp.full((draws,), most, jnp.int32))
    expected = oracles.distribution(case.model, source, 0, most, case.warp)
    seen: dict[str, Counter[tuple[int, ...]]] = {}
    for i in range(keys):
        output = case.decode(source, row_keys(jax.random.fold_in(case.key, i), draws))
        drawn = zip(output.tokens.tolist(), output.length, strict=True)
        seen[f"key {i}"] = Counter(tuple(tokens[:length]) for tokens, length in drawn)
    seen["all keys"] = sum(seen.values(), Counter())
    for name, drawn in seen.items():
        p_value, worst = oracles.chi_square(drawn, expected)
        case.report.p_values.append(p_value)
        case.hold(
            p_value >= threshold,
            f"{name}: p-value {p_value:.2g} of {len(expected)} outputs; {worst}",
        )
