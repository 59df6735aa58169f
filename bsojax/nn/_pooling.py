"""Pooling and other changes of shape that act on spikes and traces alike; images of one, two or three dimensions."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._observed import observable
from bsojax.nn._spikes import Spikes, as_spikes, map_spikes

Pair = tuple[jax.Array, jax.Array]

FEW = 4
"""Windows of up to this many elements are compared element by element, in a third of the time (measured on a CPU).

From 9 on that is slower, and XLA (jaxlib 0.10) takes minutes to compile the selections for 64.
"""


@observable
def avg_pool(x: Spikes | jax.Array, window: int | tuple[int, ...]) -> Spikes | jax.Array:
    """Averages value and trace over windows that do not overlap; a remainder at the far edges is dropped.

    Args:
      x: Spikes or an array of shape ``(batch, *space, channels)``, with one to three dimensions of space.
      window: the sides of a window, or an int for all.

    Raises:
      ValueError: the window is larger than the image, or has the wrong number of sides.
    """

    def pool(image: jax.Array) -> jax.Array:
        tiles = _tiles(image, window)
        return tiles.mean(tuple(range(2, tiles.ndim - 1, 2)))

    return map_spikes(pool, x)


@observable
def max_pool(x: Spikes | jax.Array, window: int | tuple[int, ...]) -> Spikes | jax.Array:
    """Takes the largest value of each of the windows, which do not overlap, and the trace of that winner.

    Use it where spikes must stay 0 or 1. The gradient of the value goes to the winner, and the weights of the next
    layer learn from its trace. Ties are the rule among spikes: of equal values the one with the largest trace wins,
    that is, of neurons that fire together the one that has fired most recently; after that the first.

    Args:
      x: Spikes or an array of shape ``(batch, *space, channels)``, with one to three dimensions of space; a remainder
        at the far edges is dropped.
      window: the sides of a window, or an int for all.

    Raises:
      ValueError: the window is larger than the image, or has the wrong number of sides.
    """
    spikes = as_spikes(x)
    tiles = _tiles(spikes.value, window)
    ranks = tiles if spikes.trace is None else _tiles(spikes.trace, window)
    play = _one_by_one if math.prod(tiles.shape[2:-1:2]) <= FEW else _at_once
    value, trace = play(tiles, jax.lax.stop_gradient(ranks))
    if not isinstance(x, Spikes):
        return value
    return Spikes(value, None if spikes.trace is None else trace)


def _one_by_one(tiles: jax.Array, ranks: jax.Array) -> Pair:
    """Returns the winners of small windows and their traces, by selections."""
    values, traces = _elements(tiles), _elements(ranks)
    # Element by element: arg max and gather would first rearrange all windows in memory, and take ten times as long.
    value, trace = values[0], traces[0]
    for other, its_trace in zip(values[1:], traces[1:], strict=True):
        wins = (other > value) | jnp.isnan(other) | ((other == value) & (its_trace > trace))
        value, trace = jnp.where(wins, other, value), jnp.where(wins, its_trace, trace)
    return value, trace


def _at_once(tiles: jax.Array, ranks: jax.Array) -> Pair:
    """Returns the winners of windows of any size and their traces: the largest of (value, trace, earlier place)."""
    inside = tuple(range(2, tiles.ndim - 1, 2))
    count = math.prod(tiles.shape[axis] for axis in inside)
    places = jnp.arange(count).reshape([size if axis in inside else 1 for axis, size in enumerate(tiles.shape)])

    def larger(one: Any, other: Any) -> Any:
        (a, a_trace, a_place), (b, b_trace, b_place) = one, other
        first = (b_trace > a_trace) | ((b_trace == a_trace) & (b_place < a_place))
        wins = (b > a) | jnp.isnan(b) | ((b == a) & first)
        return jnp.where(wins, b, a), jnp.where(wins, b_trace, a_trace), jnp.where(wins, b_place, a_place)

    ranked = jax.lax.stop_gradient(tiles), ranks, jnp.broadcast_to(places, tiles.shape)
    lowest = *(jnp.asarray(-jnp.inf, leaf.dtype) for leaf in ranked[:2]), jnp.asarray(count, places.dtype)
    _, trace, winner = jax.lax.reduce(ranked, lowest, larger, inside)
    return jnp.where(places == jnp.expand_dims(winner, inside), tiles, 0).sum(inside), trace


@observable
def halve(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Averages value and trace over windows of 2 that do not overlap; odd sides round up, as with a stride of 2.

    Use it on the shortcut around a convolution of stride 2. A window that the edge cuts off averages the elements it
    has.

    Args:
      x: Spikes or an array of shape ``(batch, *space, channels)``, with one to three dimensions of space.

    Raises:
      ValueError: x has no spatial dimensions.
    """

    def pool(image: jax.Array) -> jax.Array:
        _validate.has_space(image.shape)
        odd = [(0, 0), *((0, side % 2) for side in image.shape[1:-1]), (0, 0)]
        # Repeating the edge makes a cut-off window average exactly the elements that it has.
        tiles = _tiles(jnp.pad(image, odd, mode="edge"), 2)
        return tiles.mean(tuple(range(2, tiles.ndim - 1, 2)))

    return map_spikes(pool, x)


@observable
def global_avg_pool(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Averages value and trace over space: ``(batch, *space, channels)`` to ``(batch, channels)``.

    Raises:
      ValueError: x has no spatial dimensions, so that its channels would be averaged silently.
    """

    def pool(image: jax.Array) -> jax.Array:
        _validate.has_space(image.shape)
        return image.mean(tuple(range(1, image.ndim - 1)))

    return map_spikes(pool, x)


@observable
def flatten(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Flattens all axes but the batch axis, of value and trace alike."""
    return map_spikes(lambda value: value.reshape(value.shape[0], math.prod(value.shape[1:])), x)


def _tiles(image: jax.Array, window: int | tuple[int, ...]) -> jax.Array:
    """Returns an image with each dimension of space split in two: the window, and the place within it."""
    _validate.has_space(image.shape)
    space = image.shape[1:-1]
    sides = (window,) * len(space) if isinstance(window, int) else tuple(window)
    _validate.pooling_window(sides, image.shape)
    counts = [size // side for size, side in zip(space, sides, strict=True)]
    kept = image[:, *(slice(count * side) for count, side in zip(counts, sides, strict=True))]
    shape = [size for pair in zip(counts, sides, strict=True) for size in pair]
    return kept.reshape(image.shape[0], *shape, image.shape[-1])


def _elements(tiles: jax.Array) -> list[jax.Array]:
    """Returns each element of all windows, in row-major order, as images ``(batch, *windows, channels)``."""
    places = itertools.product(*map(range, tiles.shape[2:-1:2]))
    return [tiles[:, *(index for side in place for index in (slice(None), side))] for place in places]
