"""Losses by the kind of target: classes, real numbers, several labels."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate


@dataclasses.dataclass(frozen=True)
class CrossEntropyMSE:
    """The loss that cross_entropy_mse returns, with the same attributes. Calling it gives the mean over the batch."""

    mse_weight: float

    def __call__(self, logits: jax.Array, y: jax.Array) -> jax.Array:
        logits = logits.astype(jnp.float32)
        entropy = cross_entropy(logits, y).mean()
        return (1 - self.mse_weight) * entropy + self.mse_weight * jnp.square(logits - _shares(logits, y)).mean()

    def per_example(self, logits: jax.Array, y: jax.Array) -> jax.Array:
        """Returns the loss of each example, of shape ``(batch,)``."""
        logits = logits.astype(jnp.float32)
        error = jnp.square(logits - _shares(logits, y)).mean(-1)
        return (1 - self.mse_weight) * cross_entropy(logits, y) + self.mse_weight * error


def cross_entropy_mse(mse_weight: float = 0.05) -> CrossEntropyMSE:
    """Returns the loss of the paper's released code, ``(1 - w) * cross_entropy + w * mse(logits, one_hot)``.

    Use it per time step; the training step divides by the number of time steps. The loss takes logits of shape
    ``(batch, classes)`` and integer labels of shape ``(batch,)``, or floating soft labels of the logits' shape, and
    returns a float32 scalar, the mean over the batch (and over the classes, for the squared error).

    Args:
      mse_weight: w, in [0, 1].

    Raises:
      ValueError: mse_weight is out of range.
    """
    return CrossEntropyMSE(_validate.number("mse_weight", mse_weight, 0, 1))


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the cross entropy of each example, of shape ``(batch,)``.

    Use it for one class per example, and with soft labels for mixup or distillation.

    Args:
      logits: shape ``(batch, classes)``.
      y: integer labels of shape ``(batch,)``, or floating class probabilities of the logits' shape.

    Raises:
      TypeError: y is neither.
    """
    logits = logits.astype(jnp.float32)
    if jnp.issubdtype(y.dtype, jnp.integer) and y.shape == logits.shape[:-1]:
        loss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return loss
    _validate.soft_labels(logits, y)
    loss = optax.softmax_cross_entropy(logits, y.astype(jnp.float32))
    return loss


def mean_squared_error(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean squared error of each example, of shape ``(batch,)``.

    Use it for regression. Integer labels of shape ``(batch,)`` with logits ``(batch, classes)`` count as one-hot.

    Args:
      logits: shape ``(batch, ...)``.
      y: the same shape.

    Raises:
      ValueError: the shapes differ, and would be broadcast.
    """
    return _by_example(jnp.square(logits.astype(jnp.float32) - _shares(logits, y)))


def binary_cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean sigmoid cross entropy of each example, of shape ``(batch,)``.

    Use it where an example may have several labels, or none.

    Args:
      logits: shape ``(batch, labels)`` or ``(batch,)``.
      y: the same shape: 0 and 1, booleans, or values in between.

    Raises:
      ValueError: the shapes differ, and would be broadcast.
    """
    _validate.like_logits(logits, y)
    return _by_example(optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), y.astype(jnp.float32)))


def _shares(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Targets as numbers of the logits' shape, labels as one-hot."""
    if jnp.issubdtype(y.dtype, jnp.integer) and logits.ndim == 2 and y.shape == logits.shape[:1]:
        return jax.nn.one_hot(y, logits.shape[-1])
    _validate.like_logits(logits, y)
    return y.astype(jnp.float32)


def _by_example(values: jax.Array) -> jax.Array:
    return values.reshape(len(values), -1).mean(-1)
