"""Separate randomness for each example of a batch, the same on any number of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def per_example(function: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array, batch: jax.Array) -> jax.Array:
    """Applies a random function to each example with its own key: ``key`` folded with the position in the batch.

    Under ``jit`` the position is that in the global batch, however many devices share it.

    Args:
      function: of a key and one example.
      key: a PRNG key.
      batch: shape ``(batch, ...)``.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(len(batch)))
    return jax.vmap(function)(keys, batch)
