"""Population encoding: a value is the activity of several neurons, each with a value that it likes best."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bsojax import _validate

BETA = 1.5
"""Widths that lie between two centres, where none is given: of Bohte et al."""


def population(x: ArrayLike, centres: ArrayLike, width: ArrayLike | None = None) -> jax.Array:
    """Returns how strongly each of several neurons answers to each feature: a Gaussian around its centre.

    Use it for few features with a wide range, such as sensor readings, of which a single neuron would tell little. The
    answers lie in (0, 1]: they are inputs as they are, and ``rate`` or ``latency`` makes spikes of them.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> x = jnp.array([[0.0, 0.5]])  # one example of two features
      >>> answers = bsojax.encoders.population(x, jnp.linspace(0, 1, 5))  # shape (1, 10)
      >>> spikes = bsojax.encoders.latency(answers, num_steps=8)  # shape (8, 1, 10)

    Args:
      x: floating, of shape ``(..., features)``.
      centres: what each neuron likes best: ``(neurons,)`` for all features, or ``(features, neurons)``.
      width: standard deviation of the Gaussians, a number or an array like centres; None: the mean distance of
        neighbouring centres divided by 1.5.

    Returns:
      Shape ``(..., features * neurons)``, the neurons of a feature beside each other, in the dtype of x.

    Raises:
      TypeError: x is not floating.
      ValueError: there is no width, and one centre, or known ones that do not differ; or a known width is not positive.

    Source: Bohte, Kok and La Poutre, Error-backpropagation in temporally encoded networks of spiking neurons, 2002,
    section 4.
    """
    values = jnp.asarray(x)
    _validate.floating("x", values, "population")
    if width is None:
        _validate.needs_width(centres)
    centres = jnp.asarray(centres, jnp.float32)
    centres = centres[None] if centres.ndim == 1 else centres
    if width is None:
        span = centres[:, -1:] - centres[:, :1]
        width = jnp.abs(span) / ((centres.shape[-1] - 1) * BETA)
    else:
        _validate.positive_values("width", width)
        width = jnp.broadcast_to(jnp.asarray(width, jnp.float32), centres.shape)
    lead = (1,) * (values.ndim - 1)
    centres, width = (each.reshape(lead + each.shape) for each in (centres, width))
    away = (values[..., None].astype(jnp.float32) - centres) / width
    answers = jnp.exp(-jnp.square(away) / 2).astype(values.dtype)
    return answers.reshape(*values.shape[:-1], -1)
