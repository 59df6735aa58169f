"""Votes on flips: devices exchange one bit a weight, whether it should flip, in the place of its gradient."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax._flips import flip_delta
from bsojax._kinds import check_leaves
from bsojax._packing import PackedSigns, is_packed, is_sign
from bsojax._sharding import devices_on
from bsojax._signs import leaf_name


def majority(flips: chex.ArrayTree, axis_name: str) -> chex.ArrayTree:
    """Returns where more than half of the devices on an axis want a flip, the same on each; a tie does not flip.

    Use it inside pmap, shard_map or vmap where devices decide flips by themselves and their links are slow. Votes
    travel as packed bits: each device is sent its slice of everybody's, counts it, and sends what won to all. Of every
    weight a device sends and receives 2 bits, where a ring that sums float32 gradients moves 64.

    Args:
      flips: a tree of boolean arrays of any shape: this device's votes.
      axis_name: the axis of pmap, shard_map or vmap.

    Returns:
      The tree of what won. To the checks of shard_map it still is a value that may differ between devices.

    Raises:
      TypeError: a leaf is not boolean, or axis_name is no name.
      ValueError: there is no such axis here.
    """
    check_leaves("flips", flips)
    devices_on(axis_name)
    leaves, structure = jax.tree_util.tree_flatten_with_path(flips)
    for path, leaf in leaves:
        if not is_sign(leaf):
            raise TypeError(f"flips: leaf '{leaf_name(path)}' is {jnp.result_type(leaf)}; votes are boolean arrays.")
    won = _majority_of_bits([jnp.packbits(jnp.ravel(leaf)) for _, leaf in leaves], axis_name)
    unpacked = [
        jnp.unpackbits(bits, count=leaf.size).astype(bool).reshape(leaf.shape)
        for bits, (_, leaf) in zip(won, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, unpacked)


def elect(signs: chex.ArrayTree, updates: optax.Updates, axis_name: str) -> optax.Updates:
    """Returns the updates of signs that flip what most devices' updates would flip.

    Args:
      signs: a tree of boolean arrays and PackedSigns, the same on each device.
      updates: this device's deltas for them, as bso and t_bso return them.
      axis_name: the axis of the devices.
    """
    structure: Any = jax.tree.structure(signs, is_leaf=is_packed)
    leaves = structure.flatten_up_to(signs)
    votes = []
    for leaf, delta in zip(leaves, structure.flatten_up_to(updates), strict=True):
        # The bytes of packed signs show what flips without being unpacked.
        packed = isinstance(leaf, PackedSigns)
        votes.append(leaf.bits ^ (leaf.bits + delta.bits) if packed else jnp.packbits(jnp.ravel(delta != 0)))
    elected: list[Any] = []
    for leaf, bits in zip(leaves, _majority_of_bits(votes, axis_name), strict=True):
        if isinstance(leaf, PackedSigns):
            elected.append(PackedSigns((leaf.bits ^ bits) - leaf.bits, leaf.shape))
        else:
            flips = jnp.unpackbits(bits, count=leaf.size).astype(bool).reshape(leaf.shape)
            elected.append(flip_delta(leaf, flips, jnp.dtype(jnp.int8)))
    return jax.tree.unflatten(structure, elected)


def _majority_of_bits(votes: list[jax.Array], axis_name: str) -> list[jax.Array]:
    """Returns the majority of each bit of uint8 vectors, over the devices of an axis."""
    devices = devices_on(axis_name)
    sizes = [len(bits) for bits in votes]
    size = sum(sizes)
    if not size:
        return votes
    # All leaves in one exchange: its latency counts once an update, not once a layer.
    joined = jnp.pad(jnp.concatenate(votes), (0, -size % devices))
    to_count = jax.lax.all_to_all(joined.reshape(devices, -1), axis_name, 0, 0)
    count = jnp.sum(jnp.unpackbits(to_count, axis=1), 0, dtype=jnp.int32)
    won = jax.lax.all_gather(jnp.packbits(2 * count > devices), axis_name, tiled=True)
    return jnp.split(won[:size], [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)])
