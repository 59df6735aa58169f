"""Front ends of event cameras: events into frames of counts, and stored frames into sequences."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from experiments.front_ends._front_end import FrontEnd
from experiments.front_ends.images import random_crop, random_flip

Edges: TypeAlias = Callable[[jax.Array, "jax.Array | int", int], jax.Array]
"""A function of (times, count, num_bins): the bin of each row, int32; rows from ``count`` on may get any bin."""

LARGEST_COUNT = 255
"""Stored counts are uint8 and stay at this once they reach it."""


def equal_time(times: jax.Array, count: jax.Array | int, num_bins: int) -> jax.Array:
    """Bins of equal duration, from the first event to the last one inclusive; edges fall on whole microseconds."""
    valid = jnp.arange(len(times)) < count
    information = jnp.iinfo(times.dtype)
    first = jnp.min(times, where=valid, initial=information.max)
    last = jnp.max(times, where=valid, initial=information.min)
    return _share(times - first, last - first + 1, num_bins)


def equal_count(times: jax.Array, count: jax.Array | int, num_bins: int) -> jax.Array:
    """Bins of equally many events, to within one; the rows must be in order of time."""
    return _share(jnp.arange(len(times), dtype=jnp.int32), jnp.asarray(count, jnp.int32), num_bins)


def bin_events(
    events: jax.Array, count: jax.Array | int, num_bins: int, height: int, width: int, *, edges: Edges = equal_time
) -> jax.Array:
    """Counts the events of one recording by time bin, place and polarity; ``vmap`` and ``jit`` it over a batch.

    Events outside the sensor, or with a polarity other than 0 and 1, are dropped after they have been given a bin: a
    compiled program cannot raise, so whoever loads a recording checks it. Counts saturate at 255.

    Args:
      events: int32 of shape ``(rows, 4)``: time [us], x (column), y (row), polarity (0 or 1).
      count: how many rows are events, an int or an int32 scalar; later rows are padding and may hold anything.
      num_bins: time bins.
      height: of the sensor, in pixels.
      width: likewise.
      edges: what divides the time, ``equal_time`` or ``equal_count``.

    Returns:
      uint8 of shape ``(num_bins, height, width, 2)``; the last axis is the polarity.

    Raises:
      TypeError: events are not int32.
      ValueError: events are not rows of four, or there is no bin or pixel.
    """
    if events.dtype != jnp.int32:
        raise TypeError(f"events: need int32, not {events.dtype}; cast them, with times in us from the first event.")
    if events.ndim != 2 or events.shape[1] != 4:
        raise ValueError(f"events: one recording is (rows, 4), not {events.shape}; a batch of them takes jax.vmap.")
    if min(num_bins, height, width) < 1:
        raise ValueError(f"num_bins, height, width: at least 1 each, got {num_bins}, {height}, {width}.")
    time, x, y, polarity = events.T
    kept = (jnp.arange(len(events)) < count) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    kept &= (polarity == 0) | (polarity == 1)
    size = num_bins * height * width * 2
    cell = ((edges(time, count, num_bins) * height + y) * width + x) * 2 + polarity
    # An index beyond the end is dropped; a negative one would count from the end.
    counts = jnp.zeros(size, jnp.int32).at[jnp.where(kept, cell, size)].add(1, mode="drop")
    return jnp.minimum(counts, LARGEST_COUNT).astype(jnp.uint8).reshape(num_bins, height, width, 2)


def resized(frames: jax.Array, height: int, width: int) -> jax.Array:
    """Shrinks frames of counts by area, keeping the sum: a pixel's events are divided by area between new pixels.

    At 128 to 48 pixels a new pixel covers 2 2/3 old ones per side, everywhere alike; adding up whole old pixels (at
    ``x * 48 // 128``) would make some new pixels twice as bright as others.

    Args:
      frames: counts of shape ``(..., height, width, channels)``, uint8 or floating.
      height: the new one, not larger than the old.
      width: likewise.

    Returns:
      float32. Shares are not whole numbers: scale them before they are rounded to few bits, or single events that four
      pixels share are lost.

    Raises:
      TypeError: frames are neither uint8 nor floating.
      ValueError: the new size is larger than the old one or less than 1.
    """
    if frames.dtype != jnp.uint8 and not jnp.issubdtype(frames.dtype, jnp.floating):
        raise TypeError(f"frames: counts are uint8 or floating, not {frames.dtype}.")
    if not (1 <= height <= frames.shape[-3] and 1 <= width <= frames.shape[-2]):
        raise ValueError(
            f"height, width: frames of {frames.shape[-3]} x {frames.shape[-2]} can be shrunk, but not resized to "
            f"{height} x {width}."
        )
    rows, columns = (jnp.asarray(_overlap(*sides)) for sides in zip(frames.shape[-3:-1], (height, width), strict=True))
    sums = jnp.einsum(
        "ih,...hwc,jw->...ijc", rows, frames.astype(jnp.float32), columns, precision=jax.lax.Precision.HIGHEST
    )
    return sums / (height * width)


def frames(largest: int = 8, max_shift: int = 0, flip: bool = False) -> FrontEnd:
    """Stored frames of counts as a sequence in [0, 1]; training may shift and flip each recording as a whole.

    Args:
      largest: counts are clipped at it and divided by it: a hot pixel that fires all the time then stays comparable
        to others, and the input of the first convolution keeps one scale over data sets. 255 clips nothing.
      max_shift: pixels, up to which a recording is shifted either way in each direction; zeros enter.
      flip: swap left and right with probability 1/2; not for digits.

    Returns:
      A front end of uint8 batches of shape ``(batch, num_bins, height, width, channels)`` to float32 sequences of
      shape ``(num_bins, batch, height, width, channels)``.

    Raises:
      ValueError: largest is not in 1 .. 255, or max_shift is negative.
    """
    if not 1 <= largest <= LARGEST_COUNT:
        raise ValueError(f"largest: must be in 1 .. {LARGEST_COUNT}, got {largest}.")
    if max_shift < 0:
        raise ValueError(f"max_shift: must not be negative, got {max_shift}.")

    def evaluate(stored: jax.Array) -> jax.Array:
        if stored.dtype != jnp.uint8:
            raise TypeError(f"frames: stored counts are uint8, not {stored.dtype}; they are scaled here, not before.")
        if stored.ndim != 5:
            raise ValueError(
                f"frames: a stored batch is (batch, num_bins, height, width, channels), not {stored.shape}."
            )
        return jnp.swapaxes(jnp.minimum(stored, largest), 0, 1).astype(jnp.float32) / largest

    def train(key: jax.Array, stored: jax.Array) -> jax.Array:
        shift_key, flip_key = jax.random.split(key)
        stored = random_crop(shift_key, stored, max_shift) if max_shift else stored
        return evaluate(random_flip(flip_key, stored) if flip else stored)

    return FrontEnd(train, evaluate, largest)


def _share(position: jax.Array, length: jax.Array, num_bins: int) -> jax.Array:
    """Returns ``position * num_bins // length``, for ``0 <= position < length``, without the product's overflow."""
    index = jnp.arange(1, num_bins, dtype=jnp.int32)
    whole, rest = length // num_bins, length % num_bins
    starts = index * whole + -(-index * rest // num_bins)  # the smallest position of each bin but the first
    return jnp.sum(position[:, None] >= starts[None, :], axis=1, dtype=jnp.int32)


def _overlap(old: int, new: int) -> np.ndarray:
    """Returns how much of old pixel j lies in new pixel i, in units that make all of them whole: ``new`` a pixel."""
    upper = np.minimum((np.arange(new)[:, None] + 1) * old, (np.arange(old)[None] + 1) * new)
    lower = np.maximum(np.arange(new)[:, None] * old, np.arange(old)[None] * new)
    return np.maximum(0, upper - lower).astype(np.float32)
