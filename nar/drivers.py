"""The three ways to run a decoder: `decode`, `trace` every step, `stream` steps as they come."""

import functools
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, Key

from nar.core import Decoder, Output, Source, State, Stats, View, at_least, check_key


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


def compile_decode(
    decoder: Decoder, model: Any, source: Source, *, key: Key[Array, "..."] | None = None
) -> jax.stages.Compiled:
    """The program that `decode` would run, for these shapes; call it with (model, source, key).

    Args:
        decoder: as in `decode`.
        model: as in `decode`.
        source: as in `decode`.
        key: as in `decode`.
    """
    key = _check(decoder, model, source, key)
    return _decode.lower(decoder, model, source, key).compile()


def flops(decoder: Decoder, model: Any, source: Source) -> tuple[float, float]:
    """Floating-point operations of the programs of `init` and of one `step`, as XLA counts them.

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


@functools.partial(jax.jit, static_argnames="decoder")
def _decode(decoder: Decoder, model: Any, source: Source, key: Key[Array, "..."]) -> Output:
    def going(state: State):
        return ~state.done.all()

    def step(state: State):
        return decoder.step(model, state).replace(view=None)

    state = jax.lax.while_loop(going, step, decoder.init(model, source, key=key))
    return decoder.finish(model, state)


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
