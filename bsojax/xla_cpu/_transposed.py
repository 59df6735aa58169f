"""Transposed convolutions and their gradients: convolutions in which image and result trade places."""

from collections.abc import Callable
from typing import Any

import jax

from bsojax.xla_cpu._convolutions import ConvGeometry, convolve_on_cpu, plain_convolve
from bsojax.xla_cpu._gradients import (
    Gradients,
    Shape,
    kernel_gradient_on_cpu,
    one_after_the_other,
    transposed_on_cpu,
    turned,
)
from bsojax.xla_cpu._switch import by_platform


def convolve_transposed(geometry: ConvGeometry, space: Shape, value: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the transposed convolution of a value, ``(batch, *space, in)``, with a kernel, ``(*size, in, out)``.

    Args:
      geometry: the geometry of the convolution that would compute a value of this shape from the result.
      space: the spatial shape of the result.
      value: the input.
      kernel: applied to the value after it is spread by the strides; the kernel of that convolution, turned.
    """
    shape = (value.shape[0], *space, kernel.shape[-1])

    def plain(value: jax.Array, kernel: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct(shape, value.dtype)
        spreading = jax.linear_transpose(lambda result: plain_convolve(result, turned(kernel), *geometry), result)
        spread: jax.Array = spreading(value)[0]
        return spread

    return by_platform(
        value,
        kernel,
        cpu=lambda value, kernel: transposed_on_cpu(geometry, shape, kernel, value),
        default=plain,
    )


def transposed_gradients(
    geometry: ConvGeometry,
    trace: jax.Array,
    kernel: Any,
    shape: Shape,
    g: jax.Array,
    weights: Callable[[Any], jax.Array],
) -> Gradients:
    """Returns the gradients of value and kernel of a transposed convolution, the latter taken at the trace.

    Arguments as in conv_gradients, geometry as in convolve_transposed.
    """

    def plain(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        ordinary = turned(weights(kernel))
        of_kernel = jax.linear_transpose(lambda ordinary: plain_convolve(g, ordinary, *geometry), ordinary)
        return plain_convolve(g, ordinary, *geometry), turned(of_kernel(trace)[0])

    def on_cpu(trace: jax.Array, kernel: Any, g: jax.Array) -> Gradients:
        ordinary = (*shape[:-2], shape[-1], shape[-2])
        return one_after_the_other(
            trace,
            kernel,
            g,
            of_value=lambda kernel, g: convolve_on_cpu(geometry, g, turned(weights(kernel))),
            of_kernel=lambda trace, g: turned(kernel_gradient_on_cpu(geometry, g, ordinary, trace)),
            size=g.size,
        )

    return by_platform(trace, kernel, g, cpu=on_cpu, default=plain)
