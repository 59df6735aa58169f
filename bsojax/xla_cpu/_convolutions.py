"""Convolutions, and their gradients as ordinary forward convolutions.

Inside ``lax.scan``, and any other loop, XLA on a CPU runs its own backward convolutions some hundred times slower than
the same convolutions outside of it (jax issue 12868).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bsojax.xla_cpu._order import not_before
from bsojax.xla_cpu._rows import convolve_rows, is_better_by_rows, kernel_gradient
from bsojax.xla_cpu._switch import by_platform


class ConvGeometry(NamedTuple):
    """The static part of a two-dimensional convolution.

    Attributes:
      strides: steps of the window along height and width.
      padding: zeros before and after height and width; negative ones crop.
      dilation: spacing of the kernel's elements along height and width.
      groups: the number of groups of channels that do not see each other.
    """

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int

    @property
    def is_simple(self) -> bool:
        """Whether it has stride 1, one group, no dilation and no crop."""
        steps = self.strides == self.dilation == (1, 1)
        return steps and self.groups == 1 and all(min(side) >= 0 for side in self.padding)


Gradients = tuple[jax.Array, jax.Array]


def convolve(geometry: ConvGeometry, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of an NHWC image with an HWIO kernel."""
    return by_platform(
        image,
        kernel,
        cpu=lambda image, kernel: _convolve_on_cpu(image, kernel, *geometry),
        default=lambda image, kernel: plain_convolve(image, kernel, *geometry),
    )


def conv_gradients(
    geometry: ConvGeometry, trace: jax.Array, kernel: Any, g: jax.Array, weights: Callable[[Any], jax.Array]
) -> Gradients:
    """Returns the gradients of image and kernel, the latter taken at the trace.

    Args:
      geometry: of the convolution.
      trace: NHWC, what stands for the image in the kernel's gradient.
      kernel: a tree of arrays that is the kernel once ``weights`` has made numbers of it; on a CPU no earlier than the
        gradient is there, so that unpacked signs do not wait in memory for it.
      g: the gradient of the convolution.
      weights: a function of kernel that returns an HWIO array.
    """

    def by(gradients: Callable[..., Gradients]) -> Callable[..., Gradients]:
        return lambda trace, kernel, g: gradients(geometry, trace, weights(kernel), g)

    by_transposition = by(gradients_by_transposition)
    if geometry.groups > 1:
        return by_transposition(trace, kernel, g)
    return by_platform(
        trace,
        kernel,
        g,
        cpu=lambda trace, kernel, g: not_before(g, by(gradients_by_convolution), trace, kernel, g),
        default=by_transposition,
    )


def gradients_by_transposition(geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """The gradients of image and kernel as XLA derives them: the reference."""
    of_value = jax.linear_transpose(lambda value: plain_convolve(value, kernel, *geometry), trace)
    of_kernel = jax.linear_transpose(lambda weights: plain_convolve(trace, weights, *geometry), kernel)
    return of_value(g)[0], of_kernel(g)[0]


def gradients_by_convolution(geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array) -> Gradients:
    """The same gradients as two ordinary forward convolutions, for one group.

    The operands are transposed behind a barrier, or XLA would fold the transposition back into the slow form. Strides
    become zeros between the elements of g.
    """
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilation
    none = jnp.zeros((), g.dtype)
    spread = g if (sh, sw) == (1, 1) else lax.pad(g, none, ((0, 0, 0), (0, 0, sh - 1), (0, 0, sw - 1), (0, 0, 0)))
    reach = ((kernel.shape[0] - 1) * dh, (kernel.shape[1] - 1) * dw)
    # Rows that the last window did not reach: they get no gradient, but the shapes must agree.
    rest = [
        trace.shape[1 + axis] + sum(geometry.padding[axis]) - reach[axis] - spread.shape[1 + axis] for axis in (0, 1)
    ]
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    value_padding = [
        (reach[axis] - geometry.padding[axis][0], reach[axis] - geometry.padding[axis][1] + rest[axis])
        for axis in (0, 1)
    ]
    value_grad = _convolve_on_cpu(spread, flipped, (1, 1), value_padding, (dh, dw))
    by_rows = kernel_gradient(trace, g, kernel.shape, geometry.padding) if geometry.is_simple else None
    if by_rows is not None:
        return value_grad, by_rows
    images, errors = lax.optimization_barrier((trace.transpose(3, 1, 2, 0), spread.transpose(1, 2, 0, 3)))
    kernel_padding = [(before, after - rest[axis]) for axis, (before, after) in enumerate(geometry.padding)]
    kernel_grad = plain_convolve(images, errors, (dh, dw), kernel_padding, (1, 1))
    return value_grad, kernel_grad.transpose(1, 2, 0, 3)


def _convolve_on_cpu(
    image: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, int],
    groups: int = 1,
) -> jax.Array:
    geometry = ConvGeometry(strides, (padding[0], padding[1]), dilation, groups)
    if geometry.is_simple and is_better_by_rows(image.shape, kernel.shape):
        return convolve_rows(image, kernel, geometry.padding)
    return plain_convolve(image, kernel, *geometry)


def plain_convolve(
    image: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, int],
    groups: int = 1,
) -> jax.Array:
    """Returns the convolution as XLA has it; arguments as the fields of ConvGeometry."""
    if any(min(side) < 0 for side in padding):
        # By hand: where a negative padding before an axis meets a positive one after it, XLA's convolution on a CPU
        # reads past the image (jaxlib 0.10). Padded first, then cropped: the crop may be wider than the image.
        for bound in (max, min):
            sides = [(bound(before, 0), bound(after, 0), 0) for before, after in padding]
            image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
        padding = [(0, 0), (0, 0)]
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
