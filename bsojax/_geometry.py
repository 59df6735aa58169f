"""The static part of a two-dimensional convolution, from the arguments that users give."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import lax

from bsojax._kinds import check_positive_int, is_int

Padding = str | int | Sequence[int | tuple[int, int]]


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
      ValueError: an argument is out of range, or the groups do not divide the channels.
    """
    strides, dilation = _pair("strides", strides), _pair("kernel_dilation", dilation)
    if is_int(kernel_size):
        raise ValueError(f"kernel_size: needs height and width, as in ({kernel_size}, {kernel_size}), not an int.")
    kernel_size = _pair("kernel_size", kernel_size)
    if len(input_shape) != 4:
        raise ValueError(f"x: a convolution needs (batch, height, width, channels), got shape {tuple(input_shape)}.")
    check_positive_int("feature_group_count", groups)
    if input_shape[-1] % groups:
        raise ValueError(f"feature_group_count: {groups} groups do not divide {input_shape[-1]} channels.")
    reach = tuple((size - 1) * spacing + 1 for size, spacing in zip(kernel_size, dilation, strict=True))
    pads = _pads(input_shape, reach, strides, padding)
    for size, side, extent in zip(input_shape[1:3], pads, reach, strict=True):
        if size + sum(side) < extent:
            raise ValueError(
                f"kernel_size: {kernel_size} with dilation {dilation} does not fit into an input of shape "
                f"{tuple(input_shape)} with padding {pads}."
            )
    return ConvGeometry(strides, pads, dilation, groups)


def _pads(
    input_shape: Sequence[int], reach: tuple[int, ...], strides: tuple[int, int], padding: Padding
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding as two pairs of ints."""
    sides: list[Any] = []
    if isinstance(padding, str) and padding in ("SAME", "VALID"):
        sides = list(lax.padtype_to_pads(input_shape[1:3], reach, strides, padding))
    elif is_int(padding):
        sides = [(padding, padding)] * 2
    elif not isinstance(padding, str) and isinstance(padding, Sequence):
        sides = [(side, side) if is_int(side) else side for side in padding]
    pairs = [tuple(side) for side in sides if isinstance(side, Sequence)]
    fits = all(is_int(end) and abs(end) < 2**31 for pair in pairs for end in pair)
    if len(pairs) != len(sides) or len(pairs) != 2 or any(len(pair) != 2 for pair in pairs) or not fits:
        raise ValueError(
            f'padding: needs "SAME", "VALID", an int, or for height and width an int or a pair, got {padding!r}.'
        )
    (top, bottom), (left, right) = pairs
    return (top, bottom), (left, right)


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = (value, value) if is_int(value) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(is_int(entry) and 1 <= entry < 2**31 for entry in pair):
        raise ValueError(f"{name}: needs a positive int, or two for height and width, got {value!r}.")
    return pair[0], pair[1]
