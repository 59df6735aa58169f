"""Products of spikes and signs by counting bits, for XLA on a CPU, where float32 products take several times as long.

The product of spikes p of 0 and 1 with signs w is ``2 * popcount(p & w) - popcount(p)``. Means of four spikes are whole
quarters, which are three planes of bits. Sums of either are exact in float32 in any order, so the results equal those
of the float product. Whether an array holds such numbers is checked when the program runs; for all others it uses the
float product.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bsojax import _jax
from bsojax.xla_cpu._convolutions import ConvGeometry, convolve, convolve_on_cpu
from bsojax.xla_cpu._switch import by_platform

WORD = 32
"""Bits of a word; JAX has no 64-bit words by default."""

UNROLLED = 24
"""About this many words are counted in one expression: the signs of this many stay in the first cache (measured)."""

LEAST = 16
"""From this many on, XLA (jaxlib 0.10) stores the slices that it reads; fewer it slices again for each element, in
seven times the time."""

PARTS = 4
"""For means of this many spikes the bits are counted."""

MANY, MANY_OF_MEANS, OUTPUTS = 512, 2048, 64
"""The fewest inputs per output for which counting spikes pays off, the fewest for which counting means of them does in
a
convolution, and the fewest outputs (measured with and without the instruction that counts the bits of a vector)."""

EXACT = 2**24
"""Whole numbers below this are exact in float32."""

Numbers = Callable[[jax.Array], jax.Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def convolve_signs(geometry: ConvGeometry, image: jax.Array, signs: jax.Array) -> jax.Array:
    """Returns the convolution of an image, ``(batch, *space, in)``, with boolean signs, ``(*size, in // groups, out)``.

    True is +1 and False is -1.
    """

    def plain(image: jax.Array, signs: jax.Array) -> jax.Array:
        return convolve(geometry, image, _numbers(signs, image.dtype))

    def counted(image: jax.Array, signs: jax.Array) -> jax.Array:
        if image.ndim == 3:
            return _convolve_on_cpu(geometry.of_rows, image[:, None], signs[None])[:, 0]
        return _convolve_on_cpu(geometry, image, signs)

    simple = image.ndim < 5 and geometry.groups == 1 and all(min(side) >= 0 for side in geometry.padding)
    if not simple or not _is_worth_counting(image, signs.shape):
        return plain(image, signs)
    return by_platform(image, signs, cpu=counted, default=plain)


@convolve_signs.defjvp
def _convolve_signs_jvp(
    geometry: ConvGeometry, primals: tuple[Any, Any], tangents: tuple[Any, Any]
) -> tuple[jax.Array, jax.Array]:
    image, signs = primals
    return convolve_signs(geometry, image, signs), convolve(geometry, tangents[0], _numbers(signs, image.dtype))


def _convolve_on_cpu(geometry: ConvGeometry, image: jax.Array, signs: jax.Array) -> jax.Array:
    places = signs.reshape(-1, *signs.shape[-2:])
    seen = functools.partial(_patches, geometry, signs.shape[:-2])

    def otherwise(image: jax.Array) -> jax.Array:
        return convolve_on_cpu(geometry, image, _numbers(signs, image.dtype))

    return _counted(image, places, seen, otherwise, math.prod(places.shape[:-1]) >= MANY_OF_MEANS)


@jax.custom_jvp
def multiply_signs(rows: jax.Array, signs: jax.Array) -> jax.Array:
    """Returns the product of numbers, ``(..., in)``, and boolean signs, ``(in, out)``: True is +1, False is -1."""

    def plain(rows: jax.Array, signs: jax.Array) -> jax.Array:
        return rows @ _numbers(signs, rows.dtype)

    def counted(rows: jax.Array, signs: jax.Array) -> jax.Array:
        return _counted(rows, signs[None], lambda words: words, lambda rows: plain(rows, signs), True)

    if not _is_worth_counting(rows, signs.shape):
        return plain(rows, signs)
    return by_platform(rows, signs, cpu=counted, default=plain)


@multiply_signs.defjvp
def _multiply_signs_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[jax.Array, jax.Array]:
    rows, signs = primals
    return multiply_signs(rows, signs), tangents[0] @ _numbers(signs, rows.dtype)


def _is_worth_counting(values: jax.Array, shape: tuple[int, ...]) -> bool:
    """Whether the product of values with signs of this shape may be counted, and is faster that way."""
    if values.dtype != jnp.float32 or not all(isinstance(size, int) for size in values.shape):
        return False  # a symbolic batch, of jax.export, has no size; numbers of 16 bits may be summed in 16 bits
    return MANY <= math.prod(shape[:-1]) < EXACT // PARTS and shape[-1] >= OUTPUTS


def _counted(values: jax.Array, signs: jax.Array, seen: Numbers, otherwise: Numbers, means: bool) -> jax.Array:
    """Returns the product of signs with spikes, or means of them, by counting, and with other numbers by otherwise.

    Args:
      values: shape ``(..., in)``.
      signs: shape ``(places, in, out)``.
      seen: maps words, ``(..., words)``, to those that each output sees, ``(..., places * words)``.
      otherwise: the product for any other numbers.
      means: whether means of spikes are counted too.
    """
    columns = words_of_signs(signs)
    spikes = words_of_spikes(values == 1)
    others = jnp.any((values != 0) & (values != 1))
    shape = jax.eval_shape(seen, spikes).shape[:-1]
    nothing = _as_varying(jnp.zeros((math.prod(shape), columns.shape[-1]), jnp.int32), values, signs)

    def add(plane: int | jax.Array, words: jax.Array, total: jax.Array) -> jax.Array:
        rows = seen(words)
        return _count(total, rows.reshape(-1, rows.shape[-1]), columns, plane)

    def numbers(total: jax.Array, parts: int) -> jax.Array:
        return (total.astype(values.dtype) / parts).reshape(*shape, -1)

    if not means:
        products: jax.Array = lax.cond(others, otherwise, lambda _: numbers(add(0, spikes, nothing), 1), values)
        return products

    # One loop for both; for spikes it runs once, since they are the last plane of means.
    planes, countable = lax.cond(others, _planes_of_means, _plane_of_spikes, values, spikes, others)

    def count(_: jax.Array) -> jax.Array:
        body = lambda plane, total: add(plane, lax.dynamic_index_in_dim(planes, plane, keepdims=False), total)  # noqa: E731
        first = jnp.where(others, 0, len(planes) - 1)
        return numbers(lax.fori_loop(first, len(planes), body, nothing), PARTS)

    products = lax.cond(countable, count, otherwise, values)
    return products


def _plane_of_spikes(values: jax.Array, spikes: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the planes of spikes, of which only the last contains any, and whether they can be counted."""
    empty = [jnp.zeros_like(spikes)] * (PARTS.bit_length() - 1)
    return jnp.stack([*empty, spikes]), ~others


def _planes_of_means(values: jax.Array, spikes: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the planes of means of spikes, and whether all values are such means."""
    parts = values * PARTS
    whole = parts.astype(jnp.uint32)
    planes = [words_of_spikes((whole >> plane) & 1 == 1) for plane in range(PARTS.bit_length())]
    return jnp.stack(planes), jnp.all((whole.astype(values.dtype) == parts) & (whole <= PARTS))


def words_of_spikes(bits: jax.Array) -> jax.Array:
    """Returns booleans, ``(..., size)``, as words of 32 bits, ``(..., ceil(size / 32))``.

    Bit i of a word lies i times the number of words after the first bit, so that words are read side by side.
    """
    apart = _apart(bits, bits.ndim - 1).astype(jnp.uint32)
    places = lax.broadcasted_iota(jnp.uint32, apart.shape, apart.ndim - 2)
    return jnp.sum(apart << places, -2, dtype=jnp.uint32)


def words_of_signs(signs: jax.Array) -> jax.Array:
    """Returns booleans, ``(places, in, out)``, as words of the inputs in the same order, ``(places * words, out)``.

    Place by place rather than as a sum: this way XLA moves the words out of a loop over time steps.
    """
    apart = _apart(signs, 1)
    parts = (apart[:, place].astype(jnp.uint32) << place for place in range(WORD))
    return functools.reduce(jnp.bitwise_or, parts).reshape(-1, signs.shape[-1])


def _apart(bits: jax.Array, axis: int) -> jax.Array:
    """Returns bits with one axis split in two: the bit within a word, and the word; False where there is no bit."""
    count = -(-bits.shape[axis] // WORD)
    missing = count * WORD - bits.shape[axis]
    filled = jnp.pad(bits, [(0, missing if dim == axis else 0) for dim in range(bits.ndim)])
    return filled.reshape(*bits.shape[:axis], WORD, count, *bits.shape[axis + 1 :])


def _patches(geometry: ConvGeometry, size: tuple[int, ...], words: jax.Array) -> jax.Array:
    """Returns the words that all places of a kernel see, side by side, at each place of the output."""
    seen = jnp.pad(words, ((0, 0), *geometry.padding, (0, 0)))
    for axis in reversed(range(1, seen.ndim - 1)):  # the last one first, as in a kernel
        side, stride, spacing = (each[axis - 1] for each in (size, geometry.strides, geometry.dilation))
        end = seen.shape[axis] - (side - 1) * spacing
        cuts = (lax.slice_in_dim(seen, first, first + end, stride, axis) for first in range(0, side * spacing, spacing))
        seen = jnp.concatenate([*cuts], -1)
    return seen


def _count(total: jax.Array, rows: jax.Array, columns: jax.Array, plane: int | jax.Array) -> jax.Array:
    """Returns a total, int32, plus that of a plane: the product of bits, ``(rows, words)`` and ``(words, out)``."""
    chunks = -(-rows.shape[1] // UNROLLED)
    size = max(LEAST, -(-rows.shape[1] // chunks))
    missing = chunks * size - rows.shape[1]  # padding without spikes counts nothing
    rows, columns = jnp.pad(rows, ((0, 0), (0, missing))), jnp.pad(columns, ((0, missing), (0, 0)))

    def add(chunk: int | jax.Array, total: jax.Array) -> jax.Array:
        spikes = lax.dynamic_slice_in_dim(rows, chunk * size, size, 1)
        signs = lax.dynamic_slice_in_dim(columns, chunk * size, size, 0)
        both = (lax.population_count(spikes[:, word, None] & signs[word][None]) for word in range(size))
        fired = lax.population_count(spikes).sum(1, dtype=jnp.uint32).astype(jnp.int32)
        return total + ((2 * functools.reduce(jnp.add, both).astype(jnp.int32) - fired[:, None]) << plane)

    return add(0, total) if chunks == 1 else lax.fori_loop(0, chunks, add, total)


def _as_varying(array: jax.Array, *others: jax.Array) -> jax.Array:
    """Returns an array marked as one that may differ between the devices of a mesh where another one does."""
    for axis in set().union(*(_jax.varying_axes(other) or () for other in others)):
        array = _jax.marked_varying(array, axis)
    return array


def _numbers(signs: jax.Array, dtype: Any) -> jax.Array:
    one = jnp.ones((), dtype)
    return jnp.where(signs, one, -one)
