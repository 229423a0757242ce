"""The ways to run a decoder that must all give the same result."""

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from nar.core import TARGET, Bundle, Decoder, Output, Source, role
from nar.drivers import decode, stream, trace
from nar.sharding import make_mesh, place, place_batch
from nar.testing.oracles import Rows

Keys = Key[Array, " batch"]
Mode = Callable[[Decoder, Any, Source, Keys], Output | Rows]


@functools.cache
def counting(kind: type[Decoder]) -> Any:
    """Decoders of this kind that count in `traces`, for all of them, how often `step` is traced."""

    class Counting(kind):
        traces = 0

        def step(self, model, state):
            Counting.traces += 1
            return super().step(model, state)

    Counting.__qualname__ = kind.__qualname__
    return Counting


class Watched:
    """A model that lists in `calls` how many positions each call scores."""

    def __init__(self, model: Any):
        self.model = model
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def extend(self, tokens, *args, **kwargs):
        """Counts, then does as the model does."""
        self.calls.append(tokens.size)
        return self.model.extend(tokens, *args, **kwargs)

    def fill(self, canvas, *args, **kwargs):
        """Counts, then does as the model does."""
        self.calls.append(canvas.size)
        return self.model.fill(canvas, *args, **kwargs)


def watch(model: Any, roles: Collection[str]) -> tuple[Any, dict[str, Watched]]:
    """A model, or the models of a bundle that play these roles, watched; and those by role."""
    watched = {name: Watched(role(model, name)) for name in roles}
    if isinstance(model, Bundle):
        return Bundle({**model.models, **watched}), watched
    return watched[TARGET], watched


def by_trace(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Output:
    """`trace`'s own output."""
    return trace(decoder, model, source, key=keys)[0]


def by_stream(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Output:
    """The last state that `stream` gives, finished."""
    *_, state = stream(decoder, model, source, key=keys)
    return decoder.finish(model, state)


def by_hand(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Output:
    """`init`, `step` and `finish` without jit."""
    with jax.disable_jit():
        state = decoder.init(model, source, key=keys)
        while not state.done.all():
            state = decoder.step(model, state).replace(view=None)
        return decoder.finish(model, state)


def by_mesh(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Output:
    """`decode` on a mesh of all devices: the model on each, the rows split between them."""
    mesh = data_mesh(source)
    keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data")))
    return decode(decoder, place(model, mesh), place_batch(source, mesh), key=keys)


def by_vmap(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Rows:
    """`decode` under `vmap`, over two halves of the batch."""
    run = jax.vmap(functools.partial(rows_of, decoder), (None, 0, 0))
    return whole(run(model, *split(math.gcd(2, len(keys)), (source, keys))))


def by_shard_map(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Rows:
    """`decode` under `shard_map`; its loops cannot prove what varies, so `check_vma` is off."""
    data = PartitionSpec("data")
    run = jax.shard_map(
        functools.partial(rows_of, decoder),
        mesh=data_mesh(source),
        in_specs=(PartitionSpec(), data, data),
        out_specs=data,
        check_vma=False,
    )
    return jax.jit(run)(model, source, keys)


def by_pmap(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Rows:
    """`decode` under `pmap`."""
    run = jax.pmap(functools.partial(rows_of, decoder), in_axes=(None, 0, 0))
    return whole(run(model, *split(data_mesh(source).shape["data"], (source, keys))))


MODES: dict[str, Mode] = {
    "trace": by_trace,
    "stream": by_stream,
    "eager": by_hand,
    "mesh": by_mesh,
    "vmap": by_vmap,
    "shard_map": by_shard_map,
    "pmap": by_pmap,
}


def data_mesh(source: Source):
    """The largest mesh over which the rows split evenly."""
    return make_mesh(data=math.gcd(source.tokens.shape[0], jax.device_count()))


def rows_of(decoder: Decoder, model: Any, source: Source, keys: Keys) -> Rows:
    """What belongs to rows: a part of a batch has its own stats."""
    return Rows.of(decode(decoder, model, source, key=keys))


def split(parts: int, tree: Any) -> Any:
    """`[batch, ...]` as `[parts, batch / parts, ...]`."""
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), tree)


def whole(tree: Any) -> Any:
    """`[parts, rows, ...]` as `[parts * rows, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
