"""Votes on flips: instead of a weight's gradient, devices exchange one bit, whether it should flip."""

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax import _jax
from bsojax.optim import deployed_in, with_deployed
from bsojax.signs import PackedSigns, bits_of, deltas_of_bits, flip_bits, signs_of


def majority(flips: chex.ArrayTree, axis_name: str) -> chex.ArrayTree:
    """Returns where more than half of the devices on an axis want a flip, the same on each; a tie does not flip.

    Use it inside pmap, shard_map or vmap where devices decide flips on their own and their links are slow. Votes are
    exchanged as packed bits: each device receives its slice of every device's votes, counts it, and sends the outcome
    to all. A device sends and receives 2 bits per weight, where a ring that sums float32 gradients moves 64.

    Args:
      flips: a tree of boolean arrays of any shape: this device's votes.
      axis_name: the axis of pmap, shard_map or vmap.

    Returns:
      The tree of outcomes. To the checks of shard_map it is still a value that may differ between devices.
    """
    leaves, structure = jax.tree.flatten(flips)
    won = _majority_of_bits([bits_of(leaf) for leaf in leaves], axis_name)
    return jax.tree.unflatten(structure, [signs_of(bits, leaf.shape) for bits, leaf in zip(won, leaves, strict=True)])


def elect(signs: chex.ArrayTree, updates: optax.Updates, axis_name: str) -> optax.Updates:
    """Returns the updates of signs that flip what most devices' updates would flip.

    Args:
      signs: a tree of boolean arrays and PackedSigns, the same on each device.
      updates: this device's deltas for them, as bso and t_bso return them.
      axis_name: the axis of the devices.
    """
    # The bytes of packed signs show what flips without unpacking.
    return deltas_of_bits(signs, _majority_of_bits(flip_bits(signs, updates), axis_name))


def elect_deployed(before: optax.OptState, after: optax.OptState, axis_name: str) -> optax.OptState:
    """Returns an optimizer's state after an update whose deployed signs changed where most devices' changed.

    Args:
      before: the state before it, whose deployed signs are the same on each device.
      after: this device's state after it.
      axis_name: the axis of the devices.
    """
    old, new = deployed_in(before), deployed_in(after)
    won = _majority_of_bits([old[name].bits ^ leaf.bits for name, leaf in new.items()], axis_name)
    elected = {
        name: PackedSigns(old[name].bits ^ bits, leaf.shape)
        for (name, leaf), bits in zip(new.items(), won, strict=True)
    }
    return with_deployed(after, elected)


def _majority_of_bits(votes: list[jax.Array], axis_name: str) -> list[jax.Array]:
    """Returns the majority of each bit of uint8 vectors, over the devices of an axis."""
    devices = _jax.axis_size(axis_name)
    sizes = [len(bits) for bits in votes]
    size = sum(sizes)
    if not size:
        return votes
    # All leaves in one exchange: its latency counts once per update, not once per layer.
    joined = jnp.pad(jnp.concatenate(votes), (0, -size % devices))
    to_count = jax.lax.all_to_all(joined.reshape(devices, -1), axis_name, 0, 0)
    count = jnp.sum(jnp.unpackbits(to_count, axis=1), 0, dtype=jnp.int32)
    won = jax.lax.all_gather(jnp.packbits(2 * count > devices), axis_name, tiled=True)
    return jnp.split(won[:size], [sum(sizes[: index + 1]) for index in range(len(sizes) - 1)])
