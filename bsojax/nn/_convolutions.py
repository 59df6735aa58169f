"""Convolutions in one, two and three dimensions, and transposed ones, all made of the two-dimensional one."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bsojax import _validate
from bsojax.nn._geometry import Padding, conv_geometry, sides_of, steps_of
from bsojax.nn._spikes import Spikes, as_spikes, map_spikes
from bsojax.nn._synapses import convolved
from bsojax.signs import Kernel, as_kernel


def conv(
    x: Spikes | jax.Array,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
) -> jax.Array:
    """Returns the convolution of value and kernel, with the kernel's gradient taken at the trace.

    Use it in layers of your own; BinaryConv and Conv are made of it. Images have as many dimensions as the kernel: one,
    two or three.

    Args:
      x: Spikes or a floating array of shape ``(batch, *space, channels)``.
      kernel: shape ``(*sides, channels // groups, out)``: numbers, which are cast to the dtype of x, or signs, packed
        or not.
      strides: as in flax.linen.Conv, and so are the following.
      padding: "SAME", "VALID", an int, or for each dimension an int or a pair (before, after).
      kernel_dilation: spacing of the kernel's elements.
      feature_group_count: the number of groups of channels that do not see each other.

    Returns:
      The current, of shape ``(batch, *space', out)``.

    Raises:
      ValueError: x and kernel differ in dimensions, the kernel does not fit into the padded image, or an argument is
        none that a convolution has.
    """
    spikes = as_spikes(x)
    held = as_kernel(kernel, spikes.dtype)
    dims = len(held.shape) - 2
    _validate.dimensions("x", spikes.shape, dims)
    steps, spacing = steps_of(strides, dims), steps_of(kernel_dilation, dims)
    sides = sides_of(spikes.shape[1:-1], held.shape[:-2], steps, padding, spacing)
    return _convolve(spikes, held, steps, sides, spacing, feature_group_count)


def conv_transpose(
    x: Spikes | jax.Array,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Returns the transposed convolution, which makes images larger, with the kernel's gradient taken at the trace.

    Use it in layers of your own; BinaryConvTranspose is made of it.

    Args:
      x: Spikes or a floating array of shape ``(batch, *space, channels)``.
      kernel: shape ``(*sides, channels, out)``, as in :func:`conv`.
      strides: how many times larger the image becomes; as in flax.linen.ConvTranspose, and so are the following.
      padding: "SAME", "VALID", an int, or for each dimension an int or a pair, of the image with zeros between.
      kernel_dilation: spacing of the kernel's elements.

    Returns:
      The current, of shape ``(batch, *space', out)``.

    Raises:
      ValueError: as conv.
    """
    spikes = as_spikes(x)
    held = as_kernel(kernel, spikes.dtype)
    dims = len(held.shape) - 2
    _validate.dimensions("x", spikes.shape, dims)
    steps, spacing = steps_of(strides, dims), steps_of(kernel_dilation, dims)
    reach = [(side - 1) * space + 1 for side, space in zip(held.shape[:-2], spacing, strict=True)]
    if isinstance(padding, str):
        sides = tuple(_transposed_sides(*pair, padding) for pair in zip(reach, steps, strict=True))
    else:
        sides = sides_of(spikes.shape[1:-1], held.shape[:-2], steps, padding, spacing)
    between = ((0, 0, 0), *((0, 0, step - 1) for step in steps), (0, 0, 0))
    spread = map_spikes(lambda image: lax.pad(image, jnp.zeros((), image.dtype), between), spikes)
    return _convolve(as_spikes(spread), held, (1,) * dims, sides, spacing, 1)


def _transposed_sides(reach: int, step: int, padding: str) -> tuple[int, int]:
    """The padding with which a convolution of an image with zeros between is the transpose of one of this padding."""
    _validate.one_of("padding", padding, ("SAME", "VALID"))
    total = reach + step - 2 + (max(reach - step, 0) if padding == "VALID" else 0)
    before = reach - 1 if padding == "VALID" or step > reach - 1 else math.ceil(total / 2)
    return before, total - before


def _convolve(
    x: Spikes,
    kernel: Kernel,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    dims = len(strides)
    if dims == 1:
        flat = x.reshape(len(x), 1, *x.shape[1:])
        options = (1, *strides), ((0, 0), *padding), (1, *dilation), groups
        return _convolve(flat, kernel.reshape(1, *kernel.shape), *options)[:, 0]
    if dims == 3:
        return _by_depth(x, kernel, strides, padding, dilation, groups)
    size = (kernel.shape[0], kernel.shape[1])
    return convolved(conv_geometry(x.shape, size, strides, padding, dilation, groups), x, kernel)


def _by_depth(
    x: Spikes,
    kernel: Kernel,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    """Three dimensions: of each depth of the kernel a two-dimensional convolution, and their sum."""
    none = ((0, 0, 0), (*padding[0], 0), *((0, 0, 0),) * 3)
    padded = as_spikes(map_spikes(lambda image: lax.pad(image, jnp.zeros((), image.dtype), none), x))
    reach = (kernel.shape[0] - 1) * dilation[0]
    _validate.window(padded.shape[:2], kernel.shape[:1], dilation[:1], ((0, 0),), (reach + 1,))
    found = []
    for depth in range(kernel.shape[0]):
        first = depth * dilation[0]
        seen = padded[:, first : padded.shape[1] - reach + first : strides[0]]
        flat = seen.reshape(-1, *seen.shape[2:])
        current = _convolve(flat, kernel[depth], strides[1:], padding[1:], dilation[1:], groups)
        found.append(current.reshape(*seen.shape[:2], *current.shape[1:]))
    return sum(found[1:], start=found[0])
