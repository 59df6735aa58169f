"""Depthwise convolutions, whose channels do not see each other, as sums of products: for XLA on a CPU.

XLA (jaxlib 0.10) makes a depthwise convolution a full one, most of whose kernel is zero: measured, 60 times slower than
these sums forward, and some hundred times backward within a loop.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MANY = 128
"""From so many elements of a kernel on, a channel, the sums are too long a program."""


def is_depthwise(groups: int, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Whether each channel is a group of its own, and the kernel small."""
    elements = 1
    for size in kernel_shape[:-2]:
        elements *= size
    return groups == image_shape[-1] > 1 and elements < MANY


def convolve_depthwise(geometry: Any, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of an image, ``(batch, *space, channels)``, with a kernel, ``(*size, 1, out)``.

    Args:
      geometry: the ConvGeometry; each channel gives ``out // channels`` channels of the result.
      image: floating.
      kernel: floating.
    """
    accurate, channels = jnp.promote_types(image.dtype, jnp.float32), image.shape[-1]
    total: Any = 0
    for place, seen in _seen(geometry, image, kernel.shape):
        weights = _by_channel(kernel[place], channels, seen.ndim)
        total = total + seen[..., None].astype(accurate) * weights.astype(accurate)
    return total.reshape(*total.shape[:-2], -1).astype(image.dtype)


def depthwise_transposition(geometry: Any, g: jax.Array, kernel: jax.Array, channels: int) -> jax.Array:
    """Returns the gradient of the image.

    Args:
      geometry: of the convolution that makes an image of the result's gradient: stride 1, and paddings to that end.
      g: the gradient of the result, spread by the strides of the convolution.
      kernel: with its space reversed.
      channels: of the image.
    """
    accurate = jnp.promote_types(g.dtype, jnp.float32)
    total: Any = 0
    for place, seen in _seen(geometry, g, kernel.shape):
        parts = seen.reshape(*seen.shape[:-1], channels, -1).astype(accurate)
        total = total + jnp.sum(parts * _by_channel(kernel[place], channels, seen.ndim).astype(accurate), axis=-1)
    return total.astype(g.dtype)


def depthwise_kernel_gradient(geometry: Any, trace: jax.Array, shape: tuple[int, ...], g: jax.Array) -> jax.Array:
    """Returns the gradient of a kernel of this shape; arguments as in kernel_gradient_on_cpu."""
    parts = g.reshape(*g.shape[:-1], trace.shape[-1], -1)
    axes = tuple(range(g.ndim - 1))
    found = [jnp.sum(seen[..., None] * parts, axes).reshape(-1) for _, seen in _seen(geometry, trace, shape)]
    return jnp.stack(found).reshape(shape)


def _seen(
    geometry: Any, image: jax.Array, kernel_shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """Each place in a kernel, and what of the image its element sees."""
    around = [(0, 0, 0), *((before, after, 0) for before, after in geometry.padding), (0, 0, 0)]
    padded = lax.pad(image, jnp.zeros((), image.dtype), around)
    size, strides = kernel_shape[:-2], geometry.strides
    reach = [(length - 1) * spacing for length, spacing in zip(size, geometry.dilation, strict=True)]
    steps = [(have - far - 1) // by * by for have, far, by in zip(padded.shape[1:-1], reach, strides, strict=True)]
    for place in itertools.product(*map(range, size)):
        first = [index * spacing for index, spacing in zip(place, geometry.dilation, strict=True)]
        last = [start + step + 1 for start, step in zip(first, steps, strict=True)]
        yield place, lax.slice(padded, (0, *first, 0), (len(image), *last, image.shape[-1]), (1, *strides, 1))


def _by_channel(weights: jax.Array, channels: int, dims: int) -> jax.Array:
    """The weights of one place in a kernel as an array that broadcasts to ``(batch, *space, channels, each)``."""
    return weights.reshape((1,) * (dims - 1) + (channels, -1))
