"""The second moment of T-BSO: per layer and time step, the moving average of the mean squared gradient (eq. 13)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax.optim import _flips


@dataclasses.dataclass(frozen=True)
class SecondMoment:
    """How t_bso tracks the size of its gradients.

    Attributes:
      num_steps: T.
      b2: decay.
      eps: added inside the root.
      debias: whether the average is divided by the weight that it has accumulated.
    """

    num_steps: int
    b2: float | jax.Array
    eps: float | jax.Array
    debias: bool

    def start(self, signs: optax.Params) -> tuple[optax.Updates, jax.Array | None]:
        """Returns averages of zero for a tree of signs, and their weight where it is kept."""
        averages = jax.tree.map(lambda _: jnp.zeros((self.num_steps,), jnp.float32), signs)
        return averages, jnp.zeros((self.num_steps,), jnp.float32) if self.debias else None

    def advance(
        self, state: Any, grads: optax.Updates, time_step: int | jax.Array | None, finite: jax.Array
    ) -> tuple[dict[str, Any], optax.Updates, jax.Array]:
        """Takes in the gradients of a time step.

        Returns:
          The new fields of the state; for each leaf the root of its second moment; and whether this update counts:
          where it does not, because something is not finite or the time step is outside 0 .. T - 1, the averages stay.
        """
        t = state.count % self.num_steps if time_step is None else time_step
        t = _validate.time_step("t_bso", t, self.num_steps)
        t = t if isinstance(t, int) else jnp.asarray(t, jnp.int32)
        squares = jax.tree.map(_flips.mean_square, grads)  # the square of a finite gradient may overflow
        keep = finite & _flips.all_finite(squares) & (t >= 0) & (t < self.num_steps)

        def average_at_t(average: jax.Array, value: jax.Array) -> jax.Array:
            average = jnp.asarray(average)  # a restored state may hold NumPy arrays
            followed = _flips.moving_average(average[t], value, self.b2)
            return average.at[t].set(jnp.where(keep, followed, average[t]))

        averages = jax.tree.map(average_at_t, state.second_moment, squares)
        weight, divisor = None, jnp.ones(())
        if state.second_moment_weight is not None:
            weight = average_at_t(state.second_moment_weight, jnp.ones(()))
            divisor = jnp.where(weight[t] > 0, weight[t], 1)
        roots = jax.tree.map(lambda average: jnp.sqrt(average[t] / divisor + self.eps), averages)
        return {"second_moment": averages, "second_moment_weight": weight}, roots, keep
