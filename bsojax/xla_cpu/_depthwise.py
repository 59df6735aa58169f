"""Depthwise convolutions, whose channels do not see each other, as sums of products: for XLA on a CPU.

XLA (jaxlib 0.10) turns a depthwise convolution into a full one, most of whose kernel is zero: as measured, 60 times
slower than these sums forward, and about a hundred times slower backward within a loop.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MANY = 128
"""From this many elements of a kernel per channel on, the sums make too long a program."""


def is_depthwise(groups: int, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Whether each channel is a group of its own and the kernel is small."""
    return groups == image_shape[-1] > 1 and math.prod(kernel_shape[:-2]) < MANY


def convolve_depthwise(geometry: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of an image, ``(batch, *space, channels)``, with a kernel, ``(*size, 1, out)``.

    Args:
      geometry: the ConvGeometry; each channel gives ``out // channels`` channels of the result.
      image: floating.
      kernel: floating.
    """
    return _summed(geometry, _repeated(image, kernel.shape[-1]), kernel).astype(image.dtype)


def depthwise_transposition(geometry: Any, g: jax.Array, kernel: jax.Array, channels: int) -> jax.Array:
    """Returns the gradient of the image.

    Args:
      geometry: the geometry of the convolution that turns the result's gradient into an image: stride 1, with paddings
        to match.
      g: the gradient of the result, spread by the strides of the convolution.
      kernel: the kernel, spatially reversed.
      channels: the number of channels of the image.
    """
    total = _summed(geometry, g, kernel)
    if g.shape[-1] > channels:
        total = total.reshape(*total.shape[:-1], channels, -1).sum(-1)
    return total.astype(g.dtype)


def depthwise_kernel_gradient(geometry: Any, trace: jax.Array, shape: tuple[int, ...], g: jax.Array) -> jax.Array:
    """Returns the gradient of a kernel of the given shape; arguments as in kernel_gradient_on_cpu."""
    padded, steps = _padded(geometry, _repeated(trace, shape[-1]), shape)
    size = (trace.shape[0], *(step + 1 for step in steps), shape[-1])

    def of_place(first: list[jax.Array]) -> jax.Array:
        seen = lax.dynamic_slice(padded, (0, *first, 0), size)
        seen = lax.slice(seen, (0,) * seen.ndim, seen.shape, (1, *geometry.strides, 1))
        return jnp.sum(seen * g, tuple(range(g.ndim - 1)))

    # One after the other, or the compiler would keep the products of all places at the same time.
    firsts = [jnp.asarray(first) for first in zip(*(first for _, first in _places(geometry, shape)), strict=True)]
    gradient: jax.Array = lax.map(of_place, firsts).reshape(shape)
    return gradient


def _summed(geometry: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """The sum over a kernel's places of what each sees of the image times its weights, in float32 or better."""
    accurate = jnp.promote_types(image.dtype, jnp.float32)
    padded, steps = _padded(geometry, image, kernel.shape)

    def product(place: tuple[int, ...], first: tuple[int, ...]) -> jax.Array:
        sides = zip(first, steps, geometry.strides, strict=True)
        seen = padded[:, *(slice(start, start + step + 1, stride) for start, step, stride in sides)]
        weights = kernel[place].reshape((1,) * (image.ndim - 1) + (-1,))
        return seen.astype(accurate) * weights.astype(accurate)

    return functools.reduce(jnp.add, (product(*at) for at in _places(geometry, kernel.shape)))


def _places(geometry: Any, kernel_shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Each place in a kernel, and the first element of a padded image that it sees."""
    for place in itertools.product(*map(range, kernel_shape[:-2])):
        yield place, tuple(index * spacing for index, spacing in zip(place, geometry.dilation, strict=True))


def _padded(geometry: Any, image: jax.Array, kernel_shape: tuple[int, ...]) -> tuple[jax.Array, list[int]]:
    """Returns the padded image, and how far each element of the kernel moves over it."""
    around = [(0, 0, 0), *((before, after, 0) for before, after in geometry.padding), (0, 0, 0)]
    padded = lax.pad(image, jnp.zeros((), image.dtype), around)
    reach = [(side - 1) * spacing for side, spacing in zip(kernel_shape[:-2], geometry.dilation, strict=True)]
    sizes = zip(padded.shape[1:-1], reach, geometry.strides, strict=True)
    return padded, [(have - far - 1) // step * step for have, far, step in sizes]


def _repeated(image: jax.Array, outputs: int) -> jax.Array:
    """An image with each channel repeated for as many channels of the result as are computed from it."""
    times = outputs // image.shape[-1]
    return image if times == 1 else jnp.repeat(image, times, axis=-1)
