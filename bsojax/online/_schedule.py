"""When a training step backpropagates and when it updates: at every time step, or less often."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate


class BackwardAtAll:
    """A backward pass at every time step that the loss uses."""

    def choose(self, batch: jax.Array, num_steps: int, used: jax.Array | None) -> jax.Array | None:
        """Returns at which time steps a batch backpropagates, boolean of shape ``(num_steps,)``; None means all.

        Args:
          batch: its number.
          num_steps: the number of its time steps.
          used: which of them its loss uses, likewise.
        """
        del batch, num_steps
        return used


@dataclasses.dataclass(frozen=True)
class BackwardAtSome(BackwardAtAll):
    """Backward passes at some of the time steps, drawn anew for each batch (Meng et al., SLTT-K, ICCV 2023).

    Attributes:
      count: the number of these time steps.
    """

    count: int

    def choose(self, batch: jax.Array, num_steps: int, used: jax.Array | None) -> jax.Array:
        return chosen_steps(batch, self.count, jnp.ones(num_steps, bool) if used is None else used)


def backward_of(backward_steps: int | None, num_steps: int) -> BackwardAtAll:
    """Returns the schedule of backward passes that an argument of make_train_step selects."""
    if backward_steps is not None:
        _validate.backward_steps(backward_steps, num_steps)
    return BackwardAtAll() if backward_steps in (None, num_steps) else BackwardAtSome(backward_steps)


def chosen_steps(batch: jax.Array, backward_steps: int, used: jax.Array) -> jax.Array:
    """Returns which of the used time steps the batch with this number backpropagates at, boolean, of the shape of used.

    They are as many whether or not the batch is padded, unless fewer are used.
    """
    order = jax.random.permutation(jax.random.fold_in(jax.random.key(0), batch), len(used))
    order = jnp.where(used, order, order + len(used))
    return used & (jnp.argsort(jnp.argsort(order)) < backward_steps)


class Learner(NamedTuple):
    """What updates change.

    Attributes:
      trainable: signs and real parameters.
      opt_state: the optimizer's state.
      flips: int32 by sign leaf, the flips so far.
      skipped: int32, the updates that were skipped so far.
    """

    trainable: Any
    opt_state: optax.OptState
    flips: dict[str, jax.Array]
    skipped: jax.Array


class Found(NamedTuple):
    """What a time step has computed for an update.

    Attributes:
      grads: the gradients.
      loss: the loss that was differentiated.
      finite: whether both are finite.
      backward: whether there was a backward pass; None means that there was.
      t: the time step.
    """

    grads: Any
    loss: jax.Array
    finite: jax.Array
    backward: jax.Array | None
    t: jax.Array


Learn = Callable[[Learner, Found], Learner]
"""Makes an update."""


class UpdateAtEach:
    """An update after every time step."""

    def count(self, num_steps: int) -> int:
        """Returns the number of updates of a sequence."""
        return num_steps

    def nothing_pending(self, weights: Any) -> Any:
        """Returns what is pending before the first time step."""
        del weights
        return ()

    def at_step(self, learn: Learn, learner: Learner, pending: Any, found: Found) -> tuple[Learner, Any]:
        """Returns the learner, and what is pending, after the gradients of a time step."""
        return learn(learner, found), pending

    def at_end(self, learn: Learn, learner: Learner, pending: Any) -> Learner:
        """Returns the learner after the last time step."""
        del learn, pending
        return learner


class UpdateAtEnd(UpdateAtEach):
    """Gradients are summed over the sequence for one update, with time_step 0, at its end."""

    def count(self, num_steps: int) -> int:
        return 1

    def nothing_pending(self, weights: Any) -> Any:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), weights)
        return Found(zeros, jnp.zeros(()), jnp.array(True), None, jnp.zeros((), jnp.int32))

    def at_step(self, learn: Learn, learner: Learner, pending: Any, found: Found) -> tuple[Learner, Any]:
        grads, loss = optax.tree.add((pending.grads, pending.loss), (found.grads, found.loss))
        return learner, Found(grads, loss, pending.finite & found.finite, None, pending.t)

    def at_end(self, learn: Learn, learner: Learner, pending: Any) -> Learner:
        return learn(learner, pending)
