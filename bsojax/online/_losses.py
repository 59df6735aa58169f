"""Losses of one time step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate

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
    mse_weight = _validate.number("mse_weight", mse_weight, 0, 1)

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        logits = logits.astype(jnp.float32)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        error = jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])).mean()
        return (1 - mse_weight) * entropy + mse_weight * error

    return loss


PAPER_LOSS = cross_entropy_mse()
"""The default of training and evaluation."""


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The share of examples whose largest logit is that of their label."""
    return jnp.mean(jnp.argmax(logits, -1) == y, dtype=jnp.float32)


def within_classes(loss: jax.Array, logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns a loss, NaN where a label is outside the classes: it has no defined value, and NaN is skipped."""
    return jnp.where(jnp.all((y >= 0) & (y < logits.shape[-1])), loss, jnp.nan)
