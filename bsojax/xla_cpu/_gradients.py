"""The gradients of convolutions as ordinary forward convolutions.

Inside ``lax.scan``, and any other loop, XLA on a CPU runs its own backward convolutions some hundred times slower than
the same convolutions outside of it (jax issue 12868).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bsojax.xla_cpu._convolutions import ConvGeometry, convolve_on_cpu, plain_convolve
from bsojax.xla_cpu._order import copied_transposition, not_before
from bsojax.xla_cpu._rows import kernel_gradient
from bsojax.xla_cpu._switch import by_platform

SMALL = 2**17
"""Below so many elements of an image its memory is not worth a branch of its own for each gradient (measured)."""

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
      geometry: of the convolution.
      trace: NHWC, what stands for the image in the kernel's gradient.
      kernel: a tree of arrays that is the kernel once ``weights`` has made numbers of it; on a CPU no earlier than the
        gradient is there, so that unpacked signs do not wait in memory for it.
      shape: of the kernel, HWIO.
      g: the gradient of the convolution.
      weights: a function of kernel that returns an array of that shape.
    """

    def by_transposition(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        return gradients_by_transposition(geometry, trace, weights(kernel), g)

    def both(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        of_kernel = kernel_gradient_on_cpu(geometry, trace, shape, g)
        return value_gradient(geometry, trace.shape, weights(kernel), g), of_kernel

    def in_one_branch(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        return not_before(g, both, trace, kernel, g)

    def one_by_one(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        # One after the other, so that they share their memory. The kernel's first: nothing asks for the value's in a
        # first layer, and it must not be computed there.
        of_kernel = not_before(g, lambda trace, g: kernel_gradient_on_cpu(geometry, trace, shape, g), trace, g)
        of_value = not_before(
            of_kernel, lambda kernel, g: value_gradient(geometry, trace.shape, weights(kernel), g), kernel, g
        )
        return of_value, of_kernel

    if geometry.groups > 1:
        return by_transposition(trace, kernel, g)
    small = isinstance(trace.size, int) and trace.size < SMALL  # a symbolic batch has no size to compare
    return by_platform(trace, kernel, g, cpu=in_one_branch if small else one_by_one, default=by_transposition)


def gradients_by_transposition(geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """The gradients of image and kernel as XLA derives them: the reference."""
    of_value = jax.linear_transpose(lambda value: plain_convolve(value, kernel, *geometry), trace)
    of_kernel = jax.linear_transpose(lambda weights: plain_convolve(trace, weights, *geometry), kernel)
    return of_value(g)[0], of_kernel(g)[0]


def value_gradient(geometry: ConvGeometry, shape: Shape, kernel: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient of a value of this shape; the kernel is turned behind a barrier, or XLA would turn it back."""
    spread, rest = _spread(geometry, shape, kernel.shape, g)
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    reach = [(kernel.shape[axis] - 1) * geometry.dilation[axis] for axis in (0, 1)]
    top_bottom, left_right = (
        (reach[axis] - geometry.padding[axis][0], reach[axis] - geometry.padding[axis][1] + rest[axis])
        for axis in (0, 1)
    )
    return convolve_on_cpu(ConvGeometry((1, 1), (top_bottom, left_right), geometry.dilation, 1), spread, flipped)


def kernel_gradient_on_cpu(geometry: ConvGeometry, trace: jax.Array, shape: Shape, g: jax.Array) -> jax.Array:
    """The gradient of a kernel of this shape."""
    by_rows = kernel_gradient(trace, g, shape, geometry.padding) if geometry.is_simple else None
    if by_rows is not None:
        return by_rows
    spread, rest = _spread(geometry, trace.shape, shape, g)
    images, errors = copied_transposition(trace, (3, 1, 2, 0), 0), copied_transposition(spread, (1, 2, 0, 3), 2)
    padding = [(before, after - rest[axis]) for axis, (before, after) in enumerate(geometry.padding)]
    return copied_transposition(plain_convolve(images, errors, geometry.dilation, padding, (1, 1)), (1, 2, 0, 3), 2)


def _spread(geometry: ConvGeometry, shape: Shape, kernel_shape: Shape, g: jax.Array) -> tuple[jax.Array, list[int]]:
    """The gradient of the output with zeros for the places that strides leave out, and rows that no window reached.

    The latter get no gradient, but the shapes must agree.
    """
    (sh, sw), none = geometry.strides, jnp.zeros((), g.dtype)
    spread = g if (sh, sw) == (1, 1) else lax.pad(g, none, ((0, 0, 0), (0, 0, sh - 1), (0, 0, sw - 1), (0, 0, 0)))
    reach = [(kernel_shape[axis] - 1) * geometry.dilation[axis] for axis in (0, 1)]
    rest = [shape[1 + axis] + sum(geometry.padding[axis]) - reach[axis] - spread.shape[1 + axis] for axis in (0, 1)]
    return spread, rest
