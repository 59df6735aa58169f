"""What devices that train together exchange: nothing, means over an axis, votes on flips, or what a mesh needs.

A training step calls each method in one place. To write your own exchange, derive a class from one of these.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bsojax import _jax, _validate
from bsojax.online._batch import folded
from bsojax.online._votes import elect, elect_deployed


class Exchange:
    """Nothing is exchanged: one device, or several under jit where only the batch is split."""

    def check(self, x: jax.Array) -> None:
        """Refuses, at trace time, a batch whose gradients could not be exchanged this way."""

    def replicas(self, trainable: Any) -> Any:
        """Returns the signs and parameters with respect to which a device takes its gradients."""
        return trainable

    def varying(self, tree: Any) -> Any:
        """Returns what the loop carries and each device computes on its own, marked as varying where required."""
        return tree

    def mean(self, tree: Any) -> Any:
        """Returns the mean of losses, statistics and metrics."""
        return tree

    def keys(self, rngs: Any) -> Any:
        """Returns the random keys of a device: its own where it sees only its share of the batch."""
        return rngs

    def gradients(self, grads: Any) -> Any:
        """Returns the gradients that a device hands to its optimizer."""
        return grads

    def agreed(self, finite: jax.Array) -> jax.Array:
        """Returns whether an update is finite on all devices."""
        return finite

    def updates(self, signs: Any, updates: optax.Updates) -> optax.Updates:
        """Returns the updates of the signs."""
        return updates

    def deployed(self, before: optax.OptState, after: optax.OptState) -> optax.OptState:
        """Returns the optimizer's state after an update, with the deployed signs that devices agree on."""
        del before
        return after

    def place(self, trainable: Any) -> Any:
        """Returns the signs and parameters placed where they must be between two updates."""
        return trainable


@dataclasses.dataclass(frozen=True)
class MeanOverAxis(Exchange):
    """Devices of an axis of pmap, shard_map or vmap average their gradients.

    Attributes:
      axis_name: the axis over which the batch is split.
    """

    axis_name: str

    def replicas(self, trainable: Any) -> Any:
        # Under shard_map the gradient of a replicated input is already a sum over devices; that of a varying one is
        # each device's own, and the mean below is a mean.
        return jax.tree.map(lambda leaf: _jax.marked_varying(leaf, self.axis_name), trainable)

    def varying(self, tree: Any) -> Any:
        # Leaves made from the frame may already be marked as varying, and marking twice is an error; adding a marked
        # zero marks a leaf in either case.
        zero = _jax.marked_varying(jnp.zeros(()), self.axis_name)
        return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), tree)

    def mean(self, tree: Any) -> Any:
        return jax.lax.pmean(tree, self.axis_name)

    def keys(self, rngs: Any) -> Any:
        return folded(rngs, jax.lax.axis_index(self.axis_name))

    def gradients(self, grads: Any) -> Any:
        return self.mean(grads)


@dataclasses.dataclass(frozen=True)
class Votes(Exchange):
    """Devices of an axis vote on flips, 2 bits per weight, instead of averaging the signs' gradients, 64 bits.

    Each device keeps the momentum of its own share of the batch, and a sign flips where more than half of them would
    flip it (see majority). The gradients of real parameters, the loss and the statistics are averaged, and an update
    that one device must skip is skipped by all. Use it where links are slow; docs/SCALING.md shows its effect on
    accuracy. The optimizer's state then differs between devices and needs a device axis. Under pmap, the simplest case,
    every leaf has one; under shard_map remove it before the step, restore it after, and set check_vma=False. With
    reset_on_flip a device resets the momentum of the weights that it would flip itself.

    Deployed signs change where most devices would change them, each by its own momentum, for 2 more bits per weight:
    they stay the same on all devices. Under pmap ``jax.tree.map(lambda leaf: leaf[0], state)`` is a state to evaluate
    and save.

    Attributes:
      axis_name: the axis over which the batch is split.
    """

    axis_name: str

    def check(self, x: jax.Array) -> None:
        _validate.votes_differ(_jax.varying_axes(x))

    def mean(self, tree: Any) -> Any:
        return jax.lax.pmean(tree, self.axis_name)

    def keys(self, rngs: Any) -> Any:
        return folded(rngs, jax.lax.axis_index(self.axis_name))

    def gradients(self, grads: Any) -> Any:
        return {**grads, "params": self.mean(grads["params"])}

    def agreed(self, finite: jax.Array) -> jax.Array:
        # Only one device knows of a gradient that is not finite, and all must skip.
        all_finite: jax.Array = jax.lax.pmin(finite.astype(jnp.int32), self.axis_name) > 0
        return all_finite

    def updates(self, signs: Any, updates: optax.Updates) -> optax.Updates:
        return elect(signs, updates, self.axis_name)

    def deployed(self, before: optax.OptState, after: optax.OptState) -> optax.OptState:
        return elect_deployed(before, after, self.axis_name)


@dataclasses.dataclass(frozen=True)
class OnMesh(Exchange):
    """Under jit over a mesh on which the optimizer's state is split: each device holds signs and gradients in full.

    Devices then exchange gradients and int8 flips rather than float32 weights or activations; results stay the same.

    Attributes:
      mesh: a mesh from data_mesh.
    """

    mesh: Mesh

    def gradients(self, grads: Any) -> Any:
        return self.place(grads)

    def place(self, trainable: Any) -> Any:
        return jax.lax.with_sharding_constraint(trainable, NamedSharding(self.mesh, P()))


def exchange_of(axis_name: str | None, vote: bool, mesh: Mesh | None, exchange: Exchange | None) -> Exchange:
    """Returns the exchange that these arguments of make_train_step select."""
    _validate.one_exchange(axis_name, vote, mesh, exchange)
    if exchange is not None:
        return exchange
    if axis_name is not None:
        return Votes(axis_name) if vote else MeanOverAxis(axis_name)
    return Exchange() if mesh is None else OnMesh(mesh)
