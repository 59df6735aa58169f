"""Losses of one time step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy_mse(mse_weight: float = 0.05) -> Loss:
    """Returns the loss of the paper's released code, ``(1 - w) * cross_entropy + w * mse(logits, one_hot)``.

    Use it per time step; the training step divides by the number of time steps. The loss takes logits of shape
    ``(batch, classes)`` and integer labels of shape ``(batch,)`` and returns a float32 scalar, the mean over the batch
    (and over the classes, for the squared error).

    Args:
      mse_weight: w, in [0, 1].

    Raises:
      ValueError: mse_weight is out of range.
    """
    if not 0 <= mse_weight <= 1:
        raise ValueError(f"mse_weight: must be in [0, 1], got {mse_weight}.")

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        logits = logits.astype(jnp.float32)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        error = jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])).mean()
        return (1 - mse_weight) * entropy + mse_weight * error

    return loss
