"""The three ways to run a decoder: `decode`, `trace` every step, `stream` steps as they come."""

import concurrent.futures
import functools
import math
import os
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Key

from nar.core import Decoder, Output, Source, State, Stats, View
from nar.errors import at_least, check_key


def decode(
    decoder: Decoder, model: Any, source: Source, *, key: Key[Array, "..."] | None = None
) -> Output:
    """Decodes a batch: one compiled program, without a round trip to the host.

    Args:
        decoder: the algorithm and its hyper-parameters.
        model: one model, or a `Bundle` where the decoder needs several.
        source: the batch.
        key: one random key, or one a row; a fixed one by default.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs; before tracing.
        NarError: the source or the key does not fit; before tracing.
    """
    key = _check(decoder, model, source, key)
    return _decode(decoder, model, source, key)


class Program:
    """A function of a model and more arrays, bound to one model: `compile` it, and call it.

    The model's arrays are looked up here, once. To do so in every call, as jit does, takes Python
    0.3 ms, which is a tenth of what a small model needs to decode a sentence.

    Args:
        function: of the model and of `arrays`; traced now.
        model: a model, or a `Bundle`; its weights stay as they are now.
        *arrays: whose shapes are compiled for.

    Attributes:
        compiled: the program, of the model's arrays and the others; there once it is compiled.
        compile_s: seconds to trace and compile it, other threads' work at the same time included.
    """

    def __init__(self, function: Callable[..., Any], model: Any, *arrays: Any):
        start = time.perf_counter()
        self._leaves, structure = jax.tree.flatten(model)

        def run(leaves: list[Array], *arrays: Any) -> Any:
            return function(structure.unflatten(leaves), *arrays)

        self._lowered = jax.jit(run).lower(self._leaves, *arrays)
        self.compile_s = time.perf_counter() - start

    def compile(self) -> Self:
        """Compiles it, and returns it."""
        start = time.perf_counter()
        self.compiled = self._lowered.compile()
        self.compile_s += time.perf_counter() - start
        del self._lowered
        return self

    def __call__(self, *arrays: Any) -> Any:
        """What the function returns for arrays of those shapes."""
        return self.compiled(self._leaves, *arrays)


def compile_all(programs: Iterable[Program], threads: int | None = None) -> list[Program]:
    """Compiles programs side by side; the first ones while the others are still being traced.

    Args:
        programs: traced as they are drawn, in this thread.
        threads: that compile; by default one a core.
    """
    pool = concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count())
    try:
        return list(pool.map(Program.compile, programs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # nothing is left to do, or wanted


def compile_decode(
    decoder: Decoder, model: Any, source: Source, *, key: Key[Array, "..."] | None = None
) -> Program:
    """The program that `decode` would run, for this model and these shapes.

    Call it with (source, key): where single sentences have to be fast.

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
        key: as in `decode`.
    """
    return trace_decode(decoder, model, source, key=key).compile()


def trace_decode(
    decoder: Decoder, model: Any, source: Source, *, key: Key[Array, "..."] | None = None
) -> Program:
    """What `compile_decode` compiles, for `compile_all` to compile beside others.

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
        key: as in `decode`.
    """
    key = _check(decoder, model, source, key)
    return Program(functools.partial(_decode, decoder), model, source, key)


def flops(decoder: Decoder, model: Any, source: Source) -> tuple[float, float]:
    """Floating-point operations of the programs of `init` and of one `step`, as XLA counts them.

    They are 0 on platforms that do not say, as GPUs.

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
    """
    key = _check(decoder, model, source, None)
    state = jax.eval_shape(functools.partial(_init, decoder), model, source, key)
    programs = _init.lower(decoder, model, source, key), _step.lower(decoder, model, state)
    costs = (program.cost_analysis() for program in programs)
    first, then = ((cost or {}).get("flops", 0.0) for cost in costs)
    return first, then


FEW, LONG = 16, 32
"""When a quarter of the rows go on, these many or more, of a decode that may have so many steps,
they go on alone, in a smaller loop."""


@functools.partial(jax.jit, static_argnames="decoder")
def _decode(decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."]) -> Output:
    def step(state: State) -> State:
        return decoder.step(model, state).replace(view=None)

    def run(state: State, most: int) -> State:
        """Until at most so many rows are not done."""
        return jax.lax.while_loop(lambda state: (~state.done).sum() > most, step, state)

    state, few = decoder.init(model, source, key=key), source.tokens.shape[0] // 4
    shrinks = few >= FEW and decoder.max_steps >= LONG
    if shrinks and (axes := _row_axes(state, decoder, model, source, key)) is not None:
        state = run(state, few)
        rows = jnp.argsort(state.done, stable=True)[:few]
        state = _put_rows(state, rows, run(_take_rows(state, rows, axes), 0), axes)
    else:
        state = run(state, 0)
    return decoder.finish(model, state)


def _row_axes(
    one: State, decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."]
) -> Any:
    """Of each array of a state the axis along which its rows lie, -1 where there are none.

    None where rows cannot be taken out: they are on several devices, or not along one axis.
    """
    if math.prod(jax.sharding.get_abstract_mesh().shape.values()) > 1:
        return None

    def init(source: Source, key: Key[Array, "..."]) -> State:
        twice = functools.partial(jnp.repeat, repeats=2, axis=0)
        keys = twice(key) if key.ndim else key
        return decoder.init(model, jax.tree.map(twice, source), key=keys)

    two = jax.eval_shape(init, source, key)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        grown = [(size, then) for size, then in zip(x.shape, y.shape, strict=True) if size != then]
        if len(grown) > 1 or any(then != 2 * size for size, then in grown):
            return None
    axis = lambda x, y: next((i for i in range(x.ndim) if x.shape[i] != y.shape[i]), -1)  # noqa: E731
    return jax.tree.map(axis, one, two)


def _take_rows(state: State, rows: Int[Array, " few"], axes: State) -> State:
    """These rows of a state."""

    def take(x: Array, axis: int) -> Array:
        return x if axis < 0 else jnp.take(x, _places(x, rows, state, axis), axis)

    return jax.tree.map(take, state, axes)


def _put_rows(state: State, rows: Int[Array, " few"], part: State, axes: State) -> State:
    """A state with these rows of another; what belongs to no row is the other's."""

    def put(x: Array, y: Array, axis: int) -> Array:
        if axis < 0:
            return y
        return x.at[(slice(None),) * axis + (_places(x, rows, state, axis),)].set(y)

    return jax.tree.map(put, state, part, axes)


def _places(x: Array, rows: Int[Array, " few"], state: State, axis: int) -> Int[Array, " places"]:
    """Where rows lie along an axis; several places of one row are side by side."""
    each = x.shape[axis] // state.done.shape[0]
    return (rows[:, None] * each + jnp.arange(each)).ravel()


class Trace(struct.PyTreeNode):
    """Every step of a decode, `[steps, batch, ...]`; rows stay as they are once they are done.

    Attributes:
        tokens: the output so far.
        length: tokens written.
        done: whether the row was done.
        stats: what was counted.
        view: what the step looked at.
    """

    tokens: Int[Array, "steps batch time"]
    length: Int[Array, "steps batch"]
    done: Bool[Array, "steps batch"]
    stats: Stats
    view: View | None


def trace(
    decoder: Decoder,
    model: Any,
    source: Source,
    *,
    key: Key[Array, "..."] | None = None,
    steps: int | None = None,
) -> tuple[Output, Trace]:
    """Decodes as `decode` does and keeps every step, for pictures.

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
        key: as in `decode`.
        steps: how many steps to run; by default as many as the decoder can ever need.
    """
    key = _check(decoder, model, source, key)
    steps = decoder.max_steps if steps is None else steps
    at_least("steps", steps, 1)
    return _trace(decoder, model, source, key, steps)


@functools.partial(jax.jit, static_argnames=("decoder", "steps"))
def _trace(decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."], steps: int):
    def step(state: State, _):
        state = decoder.step(model, state)
        kept = Trace(state.tokens, state.length, state.done, state.stats, state.view)
        return state.replace(view=None), kept

    state = decoder.init(model, source, key=key)
    state, steps_kept = jax.lax.scan(step, state, length=steps)
    return decoder.finish(model, state), steps_kept


def stream(
    decoder: Decoder, model: Any, source: Source, *, key: Key[Array, "..."] | None = None
) -> Generator[State, Bool[Any, " batch"] | None, None]:
    """Decodes step by step from the host, with donated state: a state after each step.

    A yielded state's arrays are given up to the next step: read or copy what you keep. Rows that
    the generator is sent (`[batch]` bool) are done: they write no more.

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
        key: as in `decode`.
    """
    key = _check(decoder, model, source, key)
    state = _init(decoder, model, source, key)
    while not bool(jnp.all(state.done)):
        state = _step(decoder, model, state)
        ended = yield state
        if ended is not None:
            state = state.replace(done=state.done | jnp.asarray(ended))


@functools.partial(jax.jit, static_argnames="decoder")
def _init(decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."]) -> State:
    return decoder.init(model, source, key=key)


@functools.partial(jax.jit, static_argnames="decoder", donate_argnames="state")
def _step(decoder: Decoder, model: Any, state: State) -> State:
    return decoder.step(model, state).replace(view=None)


@functools.cache
def _first_key() -> Key[Array, ""]:
    with jax.ensure_compile_time_eval():  # no tracer, wherever the first call is
        return jax.random.key(0)


def _check(
    decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."] | None
) -> Key[Array, "..."]:
    """Raises what a user can mend, before tracing; the key, a fixed one by default."""
    decoder.check(model, source)
    key = _first_key() if key is None else key
    check_key(key, source.tokens.shape[0])
    return key
