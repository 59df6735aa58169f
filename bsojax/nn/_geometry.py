"""The static part of a two-dimensional convolution, from the arguments that users give."""

from collections.abc import Sequence
from typing import Any

from jax import lax

from bsojax import _validate
from bsojax.xla_cpu import ConvGeometry

Padding = str | int | Sequence[int | tuple[int, int]]


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
    strides, dilation = _pair(strides), _pair(dilation)
    reach = tuple((size - 1) * spacing + 1 for size, spacing in zip(kernel_size, dilation, strict=True))
    sides: Any = (padding, padding) if isinstance(padding, int) else padding
    if isinstance(sides, str):
        sides = lax.padtype_to_pads(input_shape[1:3], reach, strides, sides)
    top_bottom, left_right = map(_pair, sides)
    _validate.window(tuple(input_shape), kernel_size, dilation, (top_bottom, left_right), reach)
    return ConvGeometry(strides, (top_bottom, left_right), dilation, groups)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return int(first), int(second)
