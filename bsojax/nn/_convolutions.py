"""Convolutions and transposed convolutions in one, two and three dimensions; the kernel's gradient uses the trace."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from bsojax.nn._geometry import Padding, conv_geometry, transposed_geometry
from bsojax.nn._spikes import Spikes, as_spikes
from bsojax.signs import Kernel, as_kernel
from bsojax.xla_cpu import (
    ConvGeometry,
    conv_gradients,
    convolve,
    convolve_signs,
    convolve_transposed,
    transposed_gradients,
)

Residuals = tuple[jax.Array, Kernel]
Space = tuple[int, ...]


def conv(
    x: Spikes | jax.Array,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
) -> jax.Array:
    """Returns the convolution of value and kernel, with the kernel's gradient taken at the trace.

    Use it in layers of your own; BinaryConv and Conv are built on it. Images have as many dimensions as the kernel:
    one, two or three.

    Args:
      x: Spikes or a floating array of shape ``(batch, *space, channels)``.
      kernel: shape ``(*sides, channels // groups, out)``: numbers, which are cast to the dtype of x, or signs, packed
        or not.
      strides: as in flax.linen.Conv, like the arguments below.
      padding: "SAME", "VALID", in one dimension "CAUSAL", an int, or for each dimension an int or a pair (before,
        after).
      kernel_dilation: spacing of the kernel's elements.
      feature_group_count: the number of groups of channels that do not see each other.

    Returns:
      The current, of shape ``(batch, *space', out)``.

    Raises:
      ValueError: x and kernel differ in dimensions, the kernel does not fit into the padded image, or an argument is
        invalid for a convolution.
    """
    spikes = as_spikes(x)
    value, trace = spikes.value, spikes.trace
    held = as_kernel(kernel, value.dtype)
    geometry = conv_geometry(value.shape, held.shape[:-2], strides, padding, kernel_dilation, feature_group_count)
    return _conv(geometry, value, value if trace is None else trace, held)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry: ConvGeometry, value: jax.Array, trace: jax.Array, kernel: Kernel) -> jax.Array:
    if kernel.signs is not None:
        return convolve_signs(geometry, value, kernel.signs)
    return convolve(geometry, value, kernel.weights(value.dtype))


def _conv_forward(
    geometry: ConvGeometry, value: jax.Array, trace: jax.Array, kernel: Kernel
) -> tuple[jax.Array, Residuals]:
    return _conv(geometry, value, trace, kernel), (trace, kernel.kept())


def _conv_backward(geometry: ConvGeometry, residuals: Residuals, g: jax.Array) -> tuple[jax.Array, None, Kernel]:
    trace, kernel = residuals
    value_grad, kernel_grad = conv_gradients(
        geometry, trace, kernel, kernel.shape, g, lambda kept: kept.weights(trace.dtype)
    )
    return value_grad, None, kernel.gradient(kernel_grad)


_conv.defvjp(_conv_forward, _conv_backward)


def conv_transpose(
    x: Spikes | jax.Array,
    kernel: Any,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Returns the transposed convolution, which makes images larger, with the kernel's gradient taken at the trace.

    Use it in layers of your own; BinaryConvTranspose is built on it.

    Args:
      x: Spikes or a floating array of shape ``(batch, *space, channels)``.
      kernel: shape ``(*sides, channels, out)``, as in :func:`conv`.
      strides: how many times larger the image becomes; as in flax.linen.ConvTranspose, like the arguments below.
      padding: "SAME", "VALID", an int, or for each dimension an int or a pair; it applies to the image after zeros are
        inserted between its elements.
      kernel_dilation: spacing of the kernel's elements.

    Returns:
      The current, of shape ``(batch, *space', out)``.

    Raises:
      ValueError: as conv.
    """
    spikes = as_spikes(x)
    value, trace = spikes.value, spikes.trace
    held = as_kernel(kernel, value.dtype)
    geometry, space = transposed_geometry(value.shape, held.shape[:-2], strides, padding, kernel_dilation)
    return _conv_transpose(geometry, space, value, value if trace is None else trace, held)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _conv_transpose(
    geometry: ConvGeometry, space: Space, value: jax.Array, trace: jax.Array, kernel: Kernel
) -> jax.Array:
    return convolve_transposed(geometry, space, value, kernel.weights(value.dtype))


def _conv_transpose_forward(
    geometry: ConvGeometry, space: Space, value: jax.Array, trace: jax.Array, kernel: Kernel
) -> tuple[jax.Array, Residuals]:
    return _conv_transpose(geometry, space, value, trace, kernel), (trace, kernel.kept())


def _conv_transpose_backward(
    geometry: ConvGeometry, space: Space, residuals: Residuals, g: jax.Array
) -> tuple[jax.Array, None, Kernel]:
    del space
    trace, kernel = residuals
    value_grad, kernel_grad = transposed_gradients(
        geometry, trace, kernel, kernel.shape, g, lambda kept: kept.weights(trace.dtype)
    )
    return value_grad, None, kernel.gradient(kernel_grad)


_conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)
