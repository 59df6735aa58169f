"""When a training step backpropagates, and when it updates: at every time step, or more rarely."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate


class BackwardAtAll:
    """A backward pass at every time step."""

    def choose(self, batch: jax.Array, num_steps: int) -> Any:
        """Returns the choice for a batch of this number."""
        del batch, num_steps
        return None

    def at(self, choice: Any, t: jax.Array) -> jax.Array | None:
        """Returns whether a time step backpropagates; None: whenever it is asked."""
        del choice, t
        return None


@dataclasses.dataclass(frozen=True)
class BackwardAtSome(BackwardAtAll):
    """Backward passes at some of the time steps, drawn anew for each batch (Meng et al., SLTT-K, ICCV 2023).

    Attributes:
      count: at how many.
    """

    count: int

    def choose(self, batch: jax.Array, num_steps: int) -> Any:
        return chosen_steps(batch, self.count, num_steps)

    def at(self, choice: Any, t: jax.Array) -> jax.Array:
        return choice[t]


def backward_of(backward_steps: int | None, num_steps: int) -> BackwardAtAll:
    """Returns the schedule of backward passes that an argument of make_train_step stands for."""
    if backward_steps is not None:
        _validate.backward_steps(backward_steps, num_steps)
    return BackwardAtAll() if backward_steps in (None, num_steps) else BackwardAtSome(backward_steps)


def chosen_steps(batch: jax.Array, backward_steps: int, num_steps: int) -> jax.Array:
    """Returns at which time steps the batch of this number backpropagates: boolean of shape ``(num_steps,)``."""
    return jax.random.permutation(jax.random.fold_in(jax.random.key(0), batch), num_steps) < backward_steps


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


Learn = Callable[[Learner, Any, jax.Array, jax.Array | None, jax.Array], Learner]
"""Makes an update: a function of the learner, gradients, whether they are finite, whether there was a backward pass
(None: there was), and the time step."""


class UpdateAtEach:
    """An update after every time step."""

    def count(self, num_steps: int) -> int:
        """Returns the number of updates of a sequence."""
        return num_steps

    def nothing_pending(self, weights: Any) -> Any:
        """Returns what is pending before the first time step."""
        del weights
        return ()

    def at_step(
        self,
        learn: Learn,
        learner: Learner,
        pending: Any,
        grads: Any,
        finite: jax.Array,
        backward: jax.Array | None,
        t: jax.Array,
    ) -> tuple[Learner, Any]:
        """Returns the learner, and what is pending, after the gradients of a time step."""
        return learn(learner, grads, finite, backward, t), pending

    def at_end(self, learn: Learn, learner: Learner, pending: Any) -> Learner:
        """Returns the learner after the last time step."""
        del learn, pending
        return learner


class UpdateAtEnd(UpdateAtEach):
    """Gradients are summed over the sequence, for one update with time_step 0 at its end."""

    def count(self, num_steps: int) -> int:
        return 1

    def nothing_pending(self, weights: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), weights), jnp.array(True)

    def at_step(
        self,
        learn: Learn,
        learner: Learner,
        pending: Any,
        grads: Any,
        finite: jax.Array,
        backward: jax.Array | None,
        t: jax.Array,
    ) -> tuple[Learner, Any]:
        total, all_finite = pending
        return learner, (optax.tree.add(total, grads), all_finite & finite)

    def at_end(self, learn: Learn, learner: Learner, pending: Any) -> Learner:
        total, finite = pending
        return learn(learner, total, finite, None, jnp.zeros((), jnp.int32))
