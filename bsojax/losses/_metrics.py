"""Metrics: functions of logits and targets, with a value for each example, so that any batch's mean is right.

They are given the mean of what the model returned over the time steps that the loss looks at; where targets are per
time step, what it returned at each.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from bsojax import _validate

Metric: TypeAlias = Callable[[Any, Any], Any]
"""A function of logits and targets that returns an array whose first axis is the batch's, or a scalar."""


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Whether each example's largest logit is that of its label: float32 of shape ``(batch,)``."""
    return (jnp.argmax(logits, -1) == y).astype(jnp.float32)


def top_k(k: int) -> Metric:
    """Returns a metric: whether each example's label is among its k largest logits.

    Args:
      k: how many, >= 1; all of them where there are fewer classes.

    Raises:
      ValueError: k is below 1, or no int.
    """
    (k,) = _validate.whole("k", (k,), at_least=1)

    def among_top(logits: jax.Array, y: jax.Array) -> jax.Array:
        _, best = jax.lax.top_k(logits, min(k, logits.shape[-1]))
        return (best == y[:, None]).any(-1).astype(jnp.float32)

    return among_top


def confusion(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Returns of each example a one at its label and the class found: float32 of shape ``(batch, classes, classes)``.

    Use it for what differs by class. A batch's metric is then the matrix of shares, rows by label; the mean of batches,
    weighted by their examples, is that of all examples, and :func:`recalls` its accuracy class by class.
    """
    classes = logits.shape[-1]
    return jax.nn.one_hot(y, classes)[:, :, None] * jax.nn.one_hot(jnp.argmax(logits, -1), classes)[:, None]


def recalls(matrix: jax.Array) -> jax.Array:
    """Returns the accuracy of each class, of a confusion matrix; NaN for classes without an example."""
    shares: jax.Array = jnp.diagonal(matrix) / matrix.sum(1)
    return shares
