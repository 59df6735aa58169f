"""The gradients of convolutions as ordinary forward convolutions.

Inside ``lax.scan`` and any other loop, XLA on a CPU runs its own backward convolutions about a hundred times slower
than the same convolutions outside the loop (jax issue 12868).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bsojax.xla_cpu._convolutions import ConvGeometry, convolve_on_cpu, plain_convolve
from bsojax.xla_cpu._depthwise import depthwise_kernel_gradient, depthwise_transposition, is_depthwise
from bsojax.xla_cpu._order import copied_transposition, not_before
from bsojax.xla_cpu._planes import gathered, parted
from bsojax.xla_cpu._rows import kernel_gradient
from bsojax.xla_cpu._switch import by_platform

SMALL = 2**17
"""With fewer elements, an image's memory does not justify a branch of its own for each gradient (measured)."""

Gradients = tuple[jax.Array, jax.Array]
Shape = tuple[int, ...]


def conv_gradients(
    geometry: ConvGeometry,
    trace: jax.Array,
    kernel: Any,
    shape: Shape,
    g: jax.Array,
    weights: Callable[[Any], jax.Array],
) -> Gradients:
    """Returns the gradients of image and kernel, the latter taken at the trace.

    Args:
      geometry: the geometry of the convolution.
      trace: what replaces the image in the kernel's gradient, ``(batch, *space, in)``.
      kernel: a tree of arrays that ``weights`` turns into the kernel; on a CPU not before the gradient is there, so
        that unpacked signs do not occupy memory while waiting for it.
      shape: the kernel's shape, ``(*size, in // groups, out)``.
      g: the gradient of the convolution.
      weights: a function of kernel that returns an array of that shape.
    """

    def by_transposition(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        return gradients_by_transposition(geometry, trace, weights(kernel), g)

    def on_cpu(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        return one_after_the_other(
            trace,
            kernel,
            g,
            of_value=lambda kernel, g: value_gradient(geometry, trace.shape, weights(kernel), g),
            of_kernel=lambda trace, g: kernel_gradient_on_cpu(geometry, trace, shape, g),
            size=trace.size,
        )

    if geometry.groups > 1 and not is_depthwise(geometry.groups, trace.shape, shape):
        return by_transposition(trace, kernel, g)
    return by_platform(trace, kernel, g, cpu=on_cpu, default=by_transposition)


def one_after_the_other(
    trace: jax.Array,
    kernel: Any,
    g: jax.Array,
    *,
    of_value: Callable[[Any, jax.Array], jax.Array],
    of_kernel: Callable[[jax.Array, jax.Array], jax.Array],
    size: Any,
) -> Gradients:
    """Returns ``of_value(kernel, g)`` and ``of_kernel(trace, g)``, no part of which starts before g is there.

    For images of SMALL elements or more, one is finished before the other starts, so that they share their memory. The
    kernel's gradient comes first: in a first layer nothing needs the value's, and it must not be computed there.
    """

    def both(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        kernel_grad = of_kernel(trace, g)
        return of_value(kernel, g), kernel_grad

    if isinstance(size, int) and size < SMALL:  # a symbolic batch has no size to compare
        grads: Gradients = not_before(g, both, trace, kernel, g)
        return grads
    kernel_grad = not_before(g, of_kernel, trace, g)
    return not_before(kernel_grad, of_value, kernel, g), kernel_grad


def gradients_by_transposition(geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """The gradients of image and kernel as XLA derives them, for reference."""
    of_value = jax.linear_transpose(lambda value: plain_convolve(value, kernel, *geometry), trace)
    of_kernel = jax.linear_transpose(lambda weights: plain_convolve(trace, weights, *geometry), kernel)
    return of_value(g)[0], of_kernel(g)[0]


def value_gradient(geometry: ConvGeometry, shape: Shape, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient of a value of the given shape; the kernel is turned behind a barrier, or XLA would turn it back."""
    if geometry.groups > 1:
        spread, around = spread_for_transposition(geometry, shape, kernel.shape, g)
        return depthwise_transposition(around, spread, jnp.flip(kernel, range(kernel.ndim - 2)), shape[-1])
    return transposed_on_cpu(geometry, shape, lax.optimization_barrier(turned(kernel)), g)


def turned(kernel: jax.Array) -> jax.Array:
    """A kernel spatially reversed and with its channels swapped."""
    return jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-2, -1)


def transposed_on_cpu(geometry: ConvGeometry, shape: Shape, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """The transpose of a convolution over an image of the given shape, applied to g; the kernel is already turned."""
    spread, around = spread_for_transposition(geometry, shape, kernel.shape, g)
    return convolve_on_cpu(around, spread, kernel)


def spread_for_transposition(
    geometry: ConvGeometry, shape: Shape, kernel_shape: Shape, g: jax.Array
) -> tuple[jax.Array, ConvGeometry]:
    """Returns g with zeros for what strides left out, and the convolution that turns it into an image of this shape."""
    spread, rest = _spread(geometry, shape, kernel_shape, g)
    padding = tuple(
        (reach - before, reach - after + unseen)
        for reach, (before, after), unseen in zip(_reach(geometry, kernel_shape), geometry.padding, rest, strict=True)
    )
    return spread, ConvGeometry((1,) * len(rest), padding, geometry.dilation, 1)


def kernel_gradient_on_cpu(geometry: ConvGeometry, trace: jax.Array, shape: Shape, g: jax.Array) -> jax.Array:
    """The gradient of a kernel of the given shape."""
    if geometry.groups > 1:
        return depthwise_kernel_gradient(geometry, trace, shape, g)
    if trace.ndim == 3:
        return kernel_gradient_on_cpu(geometry.of_rows, trace[:, None], (1, *shape), g[:, None])[0]
    if trace.ndim == 5:
        images, _ = gathered(geometry, trace, shape[0])
        of_joined = (*shape[1:3], shape[0] * shape[3], shape[4])
        found = kernel_gradient_on_cpu(geometry.of_planes, images, of_joined, g.reshape(-1, *g.shape[2:]))
        return parted(found, shape[0])
    by_rows = kernel_gradient(trace, g, shape, geometry.padding) if geometry.is_simple else None
    if by_rows is not None:
        return by_rows
    spread, rest = _spread(geometry, trace.shape, shape, g)
    dims = len(rest)
    space, last = tuple(range(1, 1 + dims)), 1 + dims
    images = copied_transposition(trace, (last, *space, 0), 0)
    errors = copied_transposition(spread, (*space, 0, last), dims)
    padding = [(before, after - unseen) for (before, after), unseen in zip(geometry.padding, rest, strict=True)]
    found = plain_convolve(images, errors, geometry.dilation, padding, (1,) * dims)
    return copied_transposition(found, (*space, 0, last), dims)


def _spread(geometry: ConvGeometry, shape: Shape, kernel_shape: Shape, g: jax.Array) -> tuple[jax.Array, list[int]]:
    """The output's gradient with zeros for the places that strides skip, and the rows that no window reached.

    These rows get no gradient, but the shapes must agree.
    """
    between = [(0, 0, stride - 1) for stride in geometry.strides]
    strided = max(geometry.strides) > 1
    spread = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *between, (0, 0, 0))) if strided else g
    sizes = zip(shape[1:-1], geometry.padding, _reach(geometry, kernel_shape), spread.shape[1:-1], strict=True)
    return spread, [size + sum(added) - reach - seen for size, added, reach, seen in sizes]


def _reach(geometry: ConvGeometry, kernel_shape: Shape) -> list[int]:
    """How far the kernel reaches from its first element, along each dimension of space."""
    return [(size - 1) * spacing for size, spacing in zip(kernel_shape[:-2], geometry.dilation, strict=True)]
