"""Gradients of one size a channel, before they reach a flip optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_channel_rms() -> optax.GradientTransformationExtraArgs:
    """Divides the gradient of each output channel, the last axis of a leaf, by its root mean square.

    Use it before bso or t_bso. Each update then counts the same in the momentum however small the loss has become, and
    one threshold means the same noise in each channel: with it the threshold of bso is in units of the gradient's root
    mean square too. It keeps no state. Leaves with fewer than two axes are one channel. A channel whose gradient is
    zero stays zero, and one that holds NaN or infinity becomes NaN, so that the flip optimizer skips the update.

    Example:
      >>> import optax, bsojax
      >>> b1 = 0.99
      >>> tx = optax.chain(bsojax.scale_by_channel_rms(), bsojax.bso(bsojax.noise_threshold(b1, c=0.1), b1))

    Returns:
      A stateless transformation; gradients keep shape and dtype.
    """

    def update_fn(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        return jax.tree.map(_unit_channels, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update_fn)


def _unit_channels(gradient: jax.Array) -> jax.Array:
    gradient = jnp.asarray(gradient)
    values = gradient.astype(jnp.float32)
    axes = tuple(range(values.ndim - 1)) if values.ndim > 1 else None
    # By the largest element first: the square of a large or small gradient would leave the range of float32.
    largest = jnp.max(jnp.abs(values), axes, keepdims=True, initial=0.0)
    values = values / jnp.where(largest == 0, 1, largest)
    rms = jnp.sqrt(jnp.mean(jnp.square(values), axes, keepdims=True)) if values.size else jnp.ones(())
    return (values / jnp.where(largest == 0, 1, rms)).astype(gradient.dtype)
