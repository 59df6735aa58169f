"""Pooling, and other changes of shape, of spikes and their traces alike."""

import math

import jax

from bsojax import _validate
from bsojax.nn._spikes import Spikes, map_spikes


def avg_pool(x: Spikes | jax.Array, window: int | tuple[int, int]) -> Spikes | jax.Array:
    """Averages value and trace over windows that do not overlap; a rest at the lower and right edge is dropped.

    Args:
      x: Spikes or an array of shape ``(batch, height, width, channels)``.
      window: height and width of a window, or an int for both.

    Raises:
      ValueError: the window is larger than the image.
    """
    high, wide = (window, window) if isinstance(window, int) else window

    def pool(image: jax.Array) -> jax.Array:
        batch, height, width, channels = image.shape
        _validate.pooling_window((high, wide), image.shape)
        rows, columns = height // high, width // wide
        tiles = image[:, : rows * high, : columns * wide].reshape(batch, rows, high, columns, wide, channels)
        return tiles.mean((2, 4))

    return map_spikes(pool, x)


def global_avg_pool(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Averages value and trace over height and width: ``(batch, height, width, channels)`` to ``(batch, channels)``."""

    def pool(image: jax.Array) -> jax.Array:
        _batch, _height, _width, _channels = image.shape  # axes of anything else would be averaged in silence
        return image.mean((1, 2))

    return map_spikes(pool, x)


def flatten(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Ravels all axes but the batch, of value and trace alike."""
    return map_spikes(lambda value: value.reshape(value.shape[0], math.prod(value.shape[1:])), x)
