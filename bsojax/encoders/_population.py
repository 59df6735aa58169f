"""Population encoding: a value is the activity of several neurons, each with a preferred value."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from bsojax import _validate

BETA = 1.5
"""Default number of widths between two centres, from Bohte et al."""


def population(x: ArrayLike, centres: ArrayLike, width: ArrayLike | None = None) -> jax.Array:
    """Returns how strongly each of several neurons responds to each feature: a Gaussian around its centre.

    Use it for few features with a wide range, such as sensor readings, for which a single neuron would carry little
    information. The responses lie in (0, 1]: use them as inputs directly, or turn them into spikes by ``rate`` or
    ``latency``.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> x = jnp.array([[0.0, 0.5]])  # one example of two features
      >>> answers = bsojax.encoders.population(x, jnp.linspace(0, 1, 5))  # shape (1, 10)
      >>> spikes = bsojax.encoders.latency(answers, num_steps=8)  # shape (8, 1, 10)

    Args:
      x: floating, of shape ``(..., features)``.
      centres: the preferred value of each neuron: ``(neurons,)`` for all features, or ``(features, neurons)``.
      width: standard deviation of the Gaussians, a number or an array like centres; None: the mean distance of
        neighbouring centres divided by 1.5.

    Returns:
      Shape ``(..., features * neurons)``, the neurons of a feature next to each other, in the dtype of x.

    Raises:
      TypeError: x is not floating.
      ValueError: no width is given, and there is one centre, or known centres do not differ; or a known width is not
        positive.

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
