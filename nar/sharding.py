"""Meshes, and which logical axis of an array is split over which axis of the mesh.

Parameters and activations name logical axes ("batch", "heads", "ff", "vocab"); only `AxisRules`
knows what they mean on a mesh. The compiler derives all else: a mesh's axes have type Auto.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from nar.errors import NarError, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisRules:
    """The mesh axis that splits each logical axis; None: none does."""

    batch: str | None = "data"
    heads: str | None = "model"
    ff: str | None = "model"
    vocab: str | None = "model"

    def spec(
        self, shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh | AbstractMesh
    ) -> PartitionSpec:
        """How an array is split on a mesh; an axis that does not divide evenly is not."""

        def split(size: int, axis: str | None) -> str | None:
            name = axis and getattr(self, axis)
            return name if name in mesh.shape and size % mesh.shape[name] == 0 else None

        return PartitionSpec(*map(split, shape, axes))


RULES = AxisRules()


def make_mesh(*, data: int | None = None, model: int = 1) -> Mesh:
    """A mesh with the axes `data` (rows of a batch) and `model` (heads, hidden widths, vocabulary).

    Args:
        data: devices along `data`; None: all that `model` leaves.
        model: devices along `model`.

    Raises:
        NarError: there are not so many devices.
    """
    count = jax.device_count()
    at_least("model", model, 1)
    data = max(count // model, 1) if data is None else data
    at_least("data", data, 1)
    if data * model > count:
        raise NarError(f"a mesh of data={data} times model={model} devices: there are {count}")
    devices = np.array(jax.devices()[: data * model]).reshape(data, model)
    return Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def place(model: Any, mesh: Mesh, rules: AxisRules = RULES) -> Any:
    """A model on a mesh: parameters split by their `axes`, all else on every device."""

    def put(x):
        axes = x.get_metadata().get("axes", ()) if isinstance(x, nnx.Variable) else ()
        return jax.tree.map(
            lambda y: jax.device_put(y, NamedSharding(mesh, rules.spec(y.shape, axes, mesh))), x
        )

    return jax.tree.map(put, model, is_leaf=lambda x: isinstance(x, nnx.Variable))


def place_batch(tree: Any, mesh: Mesh, rules: AxisRules = RULES) -> Any:
    """Arrays of this host's rows, as global arrays whose rows are split over the mesh.

    Raises:
        NarError: the number of rows is no multiple of this host's share of the axis.
    """

    def put(x):
        sharding = NamedSharding(mesh, PartitionSpec(rules.batch))
        rows = x.shape[0] * jax.process_count()
        if rows % mesh.shape.get(rules.batch, 1):
            raise NarError(
                f"{rows} rows of a batch do not split over {mesh.shape[rules.batch]} devices: make "
                "them a multiple"
            )
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, tree)


def constrain(x: jax.Array, *axes: str | None, rules: AxisRules = RULES) -> jax.Array:
    """Tells the compiler how `x` is split, where `jax.set_mesh` has set a mesh; otherwise nothing.

    Inside of `shard_map` and `pmap` the axes are not the compiler's: nothing happens there either.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, rules.spec(x.shape, axes, mesh)))
