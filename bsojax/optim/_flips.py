"""The flip rule and its moments, equations 11 to 14 of the paper, as arithmetic on one leaf."""

import jax
import jax.numpy as jnp

from bsojax.signs import is_sign


def moving_average(average: jax.Array, value: jax.Array, decay: float | jax.Array) -> jax.Array:
    """Returns ``decay * average + (1 - decay) * value``, in the dtype of the average.

    For a Python float, ``1 - decay`` is computed in double precision: in float32 ``1 - 0.99999`` is already 0.1 % off,
    and ``1 - (1 - 1e-8)`` is zero.
    """
    return (decay * average + (1 - decay) * value.astype(average.dtype)).astype(average.dtype)


def mean_square(gradient: jax.Array) -> jax.Array:
    """Returns the float32 mean of the squared gradient of one layer, a scalar (eq. 13)."""
    # An empty layer has no mean; zero keeps its second moment finite.
    return jnp.sum(jnp.square(gradient.astype(jnp.float32))) / max(gradient.size, 1)


def flip_mask(signs: jax.Array, momentum: jax.Array, threshold: float | jax.Array) -> jax.Array:
    """Returns where ``weight * momentum > threshold``, strictly: a tie does not flip (eq. 12, 14).

    A weight that points along its gradient increases the loss; it flips once it does so by more than the threshold.

    Args:
      signs: boolean signs, or floating weights of exactly +1 and -1.
      momentum: the gradient's moving average, of the same shape.
      threshold: a scalar in the units of the momentum.
    """
    aligned = jnp.where(signs if is_sign(signs) else signs > 0, momentum, -momentum)
    return aligned > threshold


def all_finite(tree: object) -> jax.Array:
    """Returns whether every element of every floating leaf is finite, a boolean scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    finite = jnp.array(True)
    for leaf in leaves:
        finite &= jnp.all(jnp.isfinite(leaf))
    return finite
