"""Metrics: functions of logits and targets with a value for each example, so that the mean is right for any batch.

They receive the mean of the model's outputs over the time steps that the loss uses; where targets are per time step,
the outputs at each.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from bsojax import _validate

Metric: TypeAlias = Callable[[Any, Any], Any]
"""A function of logits and targets that returns a scalar, or an array whose first axis is the batch axis."""


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns whether each example's largest logit is that of its label: float32 of shape ``(batch,)``."""
    return (jnp.argmax(logits, -1) == y).astype(jnp.float32)


def top_k(k: int) -> Metric:
    """Returns a metric that says whether each example's label is among its k largest logits.

    Args:
      k: how many, >= 1; all classes where there are fewer.

    Raises:
      ValueError: k is below 1, or not an int.
    """
    (k,) = _validate.whole("k", (k,), at_least=1)

    def among_top(logits: jax.Array, y: jax.Array) -> jax.Array:
        _, best = jax.lax.top_k(logits, min(k, logits.shape[-1]))
        return (best == y[:, None]).any(-1).astype(jnp.float32)

    return among_top


def confusion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns for each example a one at its label and predicted class: float32 of shape ``(batch, classes, classes)``.

    Use it for differences between classes. A batch's metric is then the matrix of fractions, rows by label; the mean
    over batches, weighted by their numbers of examples, is that of all examples, and :func:`recalls` turns it into the
    accuracy per class.
    """
    classes = logits.shape[-1]
    return jax.nn.one_hot(y, classes)[:, :, None] * jax.nn.one_hot(jnp.argmax(logits, -1), classes)[:, None]


def recalls(matrix: jax.Array) -> jax.Array:
    """Returns the accuracy of each class from a confusion matrix; NaN for classes without an example."""
    shares: jax.Array = jnp.diagonal(matrix) / matrix.sum(1)
    return shares
