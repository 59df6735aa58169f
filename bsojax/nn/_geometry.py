"""The static part of a convolution, from the arguments that users give."""

from collections.abc import Sequence
from typing import Any

from jax import lax

from bsojax import _validate
from bsojax.xla_cpu import ConvGeometry

Padding = str | int | Sequence[int | tuple[int, int]]
Sides = tuple[tuple[int, int], ...]


def steps_of(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Returns strides or a dilation, one for each dimension of space."""
    steps = (value,) * dims if isinstance(value, int) else tuple(value)
    _validate.one_each("strides and kernel_dilation", steps, dims)
    return tuple(map(int, steps))


def sides_of(
    space: Sequence[int], kernel_size: Sequence[int], strides: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> Sides:
    """Returns how many zeros go before and after each dimension of space.

    Args:
      space: the sides of the image.
      kernel_size: those of the kernel.
      strides: steps of the window.
      padding: "SAME", "VALID", an int, or for each dimension an int or a pair (before, after).
      dilation: spacing of the kernel's elements.
    """
    if isinstance(padding, str):
        reach = [(size - 1) * spacing + 1 for size, spacing in zip(kernel_size, dilation, strict=True)]
        return tuple((int(before), int(after)) for before, after in lax.padtype_to_pads(space, reach, strides, padding))
    sides: Any = (padding,) * len(space) if isinstance(padding, int) else tuple(padding)
    _validate.one_each("padding", sides, len(space))
    return tuple((int(side), int(side)) if isinstance(side, int) else (int(side[0]), int(side[1])) for side in sides)


def conv_geometry(
    input_shape: Sequence[int],
    kernel_size: tuple[int, int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> ConvGeometry:
    """Returns the geometry of a convolution over an input of shape ``(batch, height, width, channels)``.

    Args:
      input_shape: the shape of the input, NHWC.
      kernel_size: height and width of the kernel.
      strides: steps of the window: an int, or one for height and one for width.
      padding: "SAME", "VALID", an int, or for height and width an int or a pair (before, after).
      dilation: spacing of the kernel's elements, likewise.
      groups: the number of groups of channels.

    Raises:
      ValueError: the kernel does not fit into the padded input, whose convolution would be empty.
    """
    (sh, sw), (dh, dw) = steps_of(strides, 2), steps_of(dilation, 2)
    top_bottom, left_right = sides_of(input_shape[1:3], kernel_size, (sh, sw), padding, (dh, dw))
    reach = ((kernel_size[0] - 1) * dh + 1, (kernel_size[1] - 1) * dw + 1)
    _validate.window(tuple(input_shape), kernel_size, (dh, dw), (top_bottom, left_right), reach)
    return ConvGeometry((sh, sw), (top_bottom, left_right), (dh, dw), groups)
