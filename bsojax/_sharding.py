"""Data parallelism: a mesh of devices, where each leaf of a training state lies on it, and marks of shard_map."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bsojax._kinds import check_axis_name, check_bool, check_leaves
from bsojax._state import TrainState, check_is_state

BATCH_AXIS = "batch"
"""The only axis of the mesh: the batch is split over it."""

SMALLEST_SPLIT = 4096
"""Elements below which a leaf is replicated: what a device would save is less than the exchange costs in latency."""


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "batch", over the devices.

    Use it to train on several devices under jit: a batch whose examples are split over the axis is all that it takes,
    the compiler adds the exchange of gradients and of batch statistics (docs/SCALING.md). Its axis is AxisType.Auto;
    ``jax.make_mesh`` makes Explicit ones, with which layers raise ShardingTypeError.

    Args:
      devices: which devices, each once; None is all that JAX sees, those of other processes too.

    Raises:
      TypeError: devices holds something else.
      ValueError: there is no device, or one is named twice.

    Example:
      >>> import jax, numpy as np, bsojax
      >>> mesh = bsojax.data_mesh()
      >>> sharding = jax.NamedSharding(mesh, jax.P("batch"))
      >>> x = jax.device_put(np.zeros((4 * len(jax.devices()), 8)), sharding)
    """
    chosen = jax.devices() if devices is None else devices
    is_scalar = getattr(chosen, "ndim", None) == 0
    if isinstance(chosen, str) or not isinstance(chosen, Sequence | np.ndarray) or is_scalar:
        raise TypeError(f"devices: needs a sequence of JAX devices such as jax.devices(), or None, not {devices!r}.")
    chosen = list(chosen)
    for device in chosen:
        if not isinstance(device, jax.Device):
            raise TypeError(f"devices: needs JAX devices, as jax.devices() lists them, not {device!r}.")
    if not chosen:
        raise ValueError("devices: there is none; give at least one, or None for all.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"devices: one is named twice in {chosen}; give each once.")
    return Mesh(np.array(chosen), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def state_shardings(state: TrainState, mesh: Mesh, *, split_optimizer: bool = False) -> TrainState:
    """Returns where each leaf of a training state lies: a state like it with a NamedSharding for each leaf.

    Use it to place a state, to keep it there, and to restore one onto other devices than it was saved from:
    ``state = jax.device_put(state, shardings)`` and
    ``jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)``.

    Every device holds every leaf in full, unless split_optimizer is set: then each holds a slice of the large leaves of
    opt_state (momentum, latent weights, moments of the real parameters), and their memory falls with the number of
    devices. A leaf is split along its last axis, the output channels, if the number of devices divides it, so that what
    is computed for a channel stays on one device; else along its largest axis that it divides. A leaf with no such
    axis, or with fewer than 4,096 elements, stays in full. Signs, real parameters and statistics always do.

    Args:
      state: a training state, or one of ``jax.ShapeDtypeStruct``, as ``jax.eval_shape`` gives it.
      mesh: a mesh from data_mesh.
      split_optimizer: whether large leaves of the optimizer's state are split over the devices.

    Raises:
      TypeError: state is no TrainState, mesh no mesh, or split_optimizer no bool.
      ValueError: the mesh has other axes than one "batch" of AxisType.Auto.
    """
    check_is_state(state)
    check_leaves("state", state, or_shape=True)
    check_bool("split_optimizer", split_optimizer)
    count = check_mesh(mesh)

    def split(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _split_spec(tuple(np.shape(leaf)), count))

    everywhere = NamedSharding(mesh, P())
    shardings = jax.tree.map(lambda _: everywhere, state)
    if not split_optimizer:
        return shardings
    return shardings.replace(opt_state=jax.tree.map(split, state.opt_state))


def _split_spec(shape: tuple[int, ...], count: int) -> P:
    axes = [axis for axis, size in enumerate(shape) if size % count == 0]
    if not axes or math.prod(shape) < SMALLEST_SPLIT:
        return P()
    last = len(shape) - 1
    axis = last if last in axes else max(axes, key=lambda axis: shape[axis])
    return P(*(BATCH_AXIS if index == axis else None for index in range(len(shape))))


def check_mesh(mesh: Mesh) -> int:
    """Returns the number of devices of a mesh as data_mesh makes it."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: needs a mesh from bsojax.data_mesh, not {mesh!r}.")
    if mesh.axis_names != (BATCH_AXIS,) or mesh.axis_types != (AxisType.Auto,):
        raise ValueError(
            f"mesh: needs one axis '{BATCH_AXIS}' of AxisType.Auto, as bsojax.data_mesh makes it, not "
            f"{mesh.axis_names} of {mesh.axis_types}."
        )
    return int(mesh.devices.size)


def check_devices(axis_name: str | None, vote: bool, mesh: Mesh | None) -> None:
    """Raises unless these arguments of a training step go together."""
    check_bool("vote", vote)
    if vote and axis_name is None:
        raise ValueError(
            "vote: needs axis_name, the axis of pmap or shard_map whose devices vote; under jit over a mesh the "
            "compiler exchanges gradients."
        )
    if mesh is None:
        return
    check_mesh(mesh)
    if axis_name is not None:
        raise ValueError("axis_name, mesh: axis_name is for pmap and shard_map, mesh for jit; give one of them.")


def devices_on(axis_name: str) -> int:
    """Returns the number of devices on an axis of pmap, shard_map or vmap; raises where there is none of that name."""
    if axis_name is None:
        raise TypeError("axis_name: needs the name of an axis, not None.")
    check_axis_name(axis_name)
    try:
        return jax.lax.axis_size(axis_name)
    except NameError as error:
        raise ValueError(
            f"axis_name: there is no axis '{axis_name}' here; call it inside jax.pmap, jax.shard_map or jax.vmap with "
            "that axis_name."
        ) from error


def check_exchange(axis_name: str | None, vote: bool, x: jax.Array) -> None:
    """Raises unless a training step with these arguments and the batch x can exchange what it must."""
    if axis_name is None:
        return
    devices_on(axis_name)
    kind: Any = jax.typeof(x)
    marks = getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None)
    if vote and marks:
        raise ValueError(
            "vote: where shard_map checks that replicas agree, gradients arrive summed over the devices, and there is "
            "nothing to vote on; give jax.shard_map check_vma=False."
        )


def replicated(tree: Any, mesh: Mesh | None) -> Any:
    """Returns the tree, which the compiler must hold in full on each device of the mesh."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))


def varying(tree: Any, axis_name: str | None) -> Any:
    """Marks a tree that is the same on all devices of an axis as one that may differ, for shard_map's check."""
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axis_name, to="varying"), tree)
