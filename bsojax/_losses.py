"""Losses of one time step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bsojax._kinds import as_real, check_array, check_scalar_result

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy_mse(mse_weight: float = 0.05) -> Loss:
    """Returns the loss of the paper's released code, ``(1 - w) * cross_entropy + w * mse(logits, one_hot)``.

    Use it per time step; the training step divides by the number of time steps. The loss takes logits of shape
    ``(batch, classes)`` and integer labels of shape ``(batch,)`` and returns a float32 scalar, the mean over the batch
    (and over the classes, for the squared error).

    Args:
      mse_weight: w, in [0, 1].

    Raises:
      TypeError: mse_weight is no number; at a call, logits or labels are no arrays of numbers.
      ValueError: mse_weight is out of range; at a call, there is not one integer label an example.
    """
    mse_weight = as_real("mse_weight", mse_weight, 0, 1)

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        check_array("logits", logits)
        check_array("labels", labels)
        if labels.shape != logits.shape[:-1] or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise ValueError(
                f"labels: needs an integer for each of the logits' {logits.shape[:-1]} examples, got {labels.dtype} of "
                f"shape {labels.shape}."
            )
        logits = logits.astype(jnp.float32)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        error = jnp.square(logits - jax.nn.one_hot(labels, logits.shape[-1])).mean()
        return (1 - mse_weight) * entropy + mse_weight * error

    return loss


def mean_loss(loss: Loss, logits: jax.Array, labels: jax.Array, *, differentiable: bool) -> jax.Array:
    """Returns a batch's loss; raises unless the function returns a real scalar, and, if asked, one with a gradient."""
    value = loss(logits, labels)
    check_scalar_result("loss", value, floating=differentiable)
    return value
