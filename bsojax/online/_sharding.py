"""Data parallelism under jit: a mesh of devices, and where each leaf of a training state is placed on it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bsojax.online._state import TrainState
from bsojax.signs import is_packed

BATCH_AXIS = "batch"
"""The only axis of the mesh; the batch is split over it."""

SMALLEST_SPLIT = 4096
"""Leaves with fewer elements are replicated: a device would save less than the exchange costs in latency."""


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "batch", over the devices.

    Use it to train on several devices under jit: split the examples of a batch over the axis, and the compiler adds the
    exchange of gradients and of batch statistics (docs/SCALING.md). Its axis is AxisType.Auto; ``jax.make_mesh`` makes
    Explicit axes, for which layers raise ShardingTypeError.

    Args:
      devices: which devices, each once; None means all that JAX sees, including those of other processes.

    Example:
      >>> import jax, numpy as np, bsojax
      >>> mesh = bsojax.data_mesh()
      >>> sharding = jax.NamedSharding(mesh, jax.P("batch"))
      >>> x = jax.device_put(np.zeros((4 * len(jax.devices()), 8)), sharding)
    """
    chosen = jax.devices() if devices is None else list(devices)
    return Mesh(np.array(chosen), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def state_shardings(state: TrainState, mesh: Mesh, *, split_optimizer: bool = False) -> TrainState:
    """Returns the placement of each leaf of a training state: a state like it with a NamedSharding for each leaf.

    Use it to place a state, to keep it in place, and to restore one onto other devices than it was saved from:
    ``state = jax.device_put(state, shardings)`` and
    ``jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)``.

    Every device holds every leaf in full, unless split_optimizer is set: then each holds a slice of the large leaves of
    opt_state (momentum, latent weights, moments of the real parameters), and their memory per device falls with the
    number of devices. A leaf is split along its last axis, the output channels, if its size is divisible by the number
    of devices, so that whatever is computed for a channel stays on one device; otherwise along its largest divisible
    axis. A leaf with no such axis, or with fewer than 4,096 elements, stays whole. Signs, real parameters and
    statistics always do, and so do the deployed signs that an optimizer keeps, at one bit per weight, so that a single
    process can save them.

    Args:
      state: a training state, or one of ``jax.ShapeDtypeStruct``, as ``jax.eval_shape`` returns it.
      mesh: a mesh from data_mesh.
      split_optimizer: whether large leaves of the optimizer's state are split over the devices.
    """
    count = int(mesh.devices.size)

    def split(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _split_spec(tuple(np.shape(leaf)), count))

    everywhere = NamedSharding(mesh, P())
    shardings: TrainState = jax.tree.map(lambda _: everywhere, state)
    if not split_optimizer:
        return shardings
    placed = jax.tree.map(
        lambda leaf: jax.tree.map(lambda _: everywhere, leaf) if is_packed(leaf) else split(leaf),
        state.opt_state,
        is_leaf=is_packed,
    )
    return dataclasses.replace(shardings, opt_state=placed)


def _split_spec(shape: tuple[int, ...], count: int) -> P:
    axes = [axis for axis, size in enumerate(shape) if size % count == 0]
    if not axes or math.prod(shape) < SMALLEST_SPLIT:
        return P()
    last = len(shape) - 1
    axis = last if last in axes else max(axes, key=lambda axis: shape[axis])
    return P(*(BATCH_AXIS if index == axis else None for index in range(len(shape))))
