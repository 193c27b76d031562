"""Devices and one table from logical axis to mesh axis. It is in force everywhere, a single CPU
included."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

TABLE: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "hidden": "fsdp",
    "heads": "tensor",
    "inner": "tensor",
    "vocab": "tensor",
    "rank": None,
    "norm": None,
}

_PROJECTIONS = {
    "q": ("hidden", "heads"),
    "k": ("hidden", "heads"),
    "v": ("hidden", "heads"),
    "o": ("heads", "hidden"),
    "gate": ("hidden", "inner"),
    "up": ("hidden", "inner"),
    "down": ("inner", "hidden"),
}


def make(
    data: int = 0, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over `devices`, or over all of all hosts. `data` 0 takes those that fsdp and tensor
    leave.

    Where a host's devices can hold the weights (fsdp x tensor divides their number), no weight is
    split between hosts, whatever the wiring would suggest: each can then sample by itself.

    Raises ValueError if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    data = data or len(devices) // (fsdp * tensor)
    if data * fsdp * tensor != len(devices):
        raise ValueError(
            f"config.mesh: data {data} x fsdp {fsdp} x tensor {tensor} is not the number of "
            f"devices, {len(devices)} ({devices[0].platform})"
        )
    indices, kinds = sorted({d.process_index for d in devices}), (AxisType.Auto,) * 3
    a_host = len(devices) // len(indices)
    if len(indices) == 1 or a_host % (fsdp * tensor):
        return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=kinds, devices=devices)
    shape = (a_host // (fsdp * tensor), fsdp, tensor)
    hosts = [
        mesh_utils.create_device_mesh(shape, [d for d in devices if d.process_index == host])
        for host in indices
    ]
    return Mesh(np.concatenate(hosts), AXES, axis_types=kinds)


def of_host(mesh: Mesh) -> Mesh:
    """The part of a mesh that lies on this host, if that part can hold the weights; else `mesh`,
    whose hosts then work in step."""
    if not mesh.is_multi_process:
        return mesh
    try:
        part = mesh.local_mesh
    except ValueError:  # this host's devices are no block of the mesh
        return mesh
    whole = all(part.shape[axis] == mesh.shape[axis] for axis in ("fsdp", "tensor"))
    return part if whole else mesh


def view(mesh: Mesh, tree: Any) -> Any:
    """Weights of a whole mesh as arrays on `mesh`, its `of_host`. Nothing is copied."""

    def of(leaf: Array) -> Array:
        assert isinstance(leaf.sharding, NamedSharding)
        parts = [shard.data for shard in leaf.addressable_shards]
        placed = NamedSharding(mesh, leaf.sharding.spec)
        return jax.make_array_from_single_device_arrays(leaf.shape, placed, parts)

    return jax.tree.map(of, tree) if jax.process_count() > 1 else tree


def put(array: np.ndarray | Array, placed: NamedSharding) -> Array:
    """A host's array, the same on every host, on the devices of a sharding."""
    if placed.is_fully_addressable:
        return jax.device_put(array, placed)
    content = np.asarray(array)
    return jax.make_array_from_callback(content.shape, placed, lambda index: content[index])


def fetch(tree: Any) -> Any:
    """The leaves as whole numpy arrays on every host, wherever their parts lie."""

    def whole(leaf: Any) -> Any:
        local = not isinstance(leaf, Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return leaf if local else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))


def sharding(
    mesh: Mesh | AbstractMesh, shape: Sequence[int], logical: Sequence[str | None]
) -> NamedSharding:
    """The sharding of an array by its logical axes; an axis that does not divide is left whole."""
    spec: list[Any] = []
    for size, name in zip(shape, logical, strict=True):
        axis = None if name is None else TABLE[name]
        names = (axis,) if isinstance(axis, str) else (axis or ())
        ways = math.prod(mesh.shape[part] for part in names)
        spec.append(axis if size % ways == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*spec))


def constrain(x: Array, logical: Sequence[str | None]) -> Array:
    """`x`, inside a compiled function, laid out by the table on the mesh that the function's
    arguments lie on; as it is where they lie on none. Left to itself XLA may rather gather every
    row on every device than a layer's weights."""
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, sharding(mesh, x.shape, logical))


def platform(x: Array) -> str:
    """The platform that a function under compilation is for, as the mesh of its argument `x` says:
    a program for TPUs may be compiled where there are none."""
    device = jax.typeof(x).sharding.mesh.abstract_device
    return jax.default_backend() if device is None else str(device.platform)


def abstract(mesh: Mesh, tree: Any) -> Any:
    """Parameters, adapters or optimiser state as shapes with their shardings, to compile for."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        tree,
        tree_shardings(mesh, tree),
    )


def logical_axes(path: Sequence[Any], ndim: int) -> tuple[str | None, ...]:
    """The logical axes of a parameter or adapter leaf, from its path in the tree (see
    `models.llama`)."""
    names = [str(part) for part in path]
    if names[-1] in ("embed", "head"):
        return ("vocab", "hidden")
    if len(names) >= 2 and names[-2] in _PROJECTIONS:
        fan_in, fan_out = _PROJECTIONS[names[-2]]
        leaves = {
            "kernel": (fan_out, fan_in),
            "bias": (fan_out,),
            "a": (fan_in, "rank"),
            "b": ("rank", fan_out),
            "low": ("rank", fan_in),
            "high": (fan_out, "rank"),
        }
        return leaves[names[-1]]
    return (None,) * ndim


def tree_shardings(mesh: Mesh, tree: Any) -> Any:
    """A sharding for every leaf of parameters, adapters or optimiser state (arrays or shapes)."""

    def of(path: Any, leaf: Any) -> NamedSharding:
        parts = [getattr(entry, "key", getattr(entry, "name", "")) for entry in path]
        return sharding(mesh, leaf.shape, logical_axes(parts or [""], len(leaf.shape)))

    return jax.tree_util.tree_map_with_path(of, tree)


def put_batch(mesh: Mesh, tree: Any) -> Any:
    """Places host batches, in one transfer: their leading axis over the devices, the others whole.
    A scalar stays with the host."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [leaf for leaf in leaves if np.ndim(leaf)]
    shardings = [_of_batch(mesh, array.shape) for array in arrays]
    if mesh.is_multi_process:
        placed = iter([put(*pair) for pair in zip(arrays, shardings, strict=True)])
    else:
        placed = iter(jax.device_put(arrays, shardings))
    both = [next(placed) if np.ndim(leaf) else leaf for leaf in leaves]
    return jax.tree.unflatten(structure, both)


@lru_cache(256)
def _of_batch(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    return sharding(mesh, shape, ("batch",) + (None,) * (len(shape) - 1))
