"""The static part of a convolution, computed from the user's arguments."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from jax import lax

from bsojax import _validate
from bsojax.xla_cpu import ConvGeometry

Padding = str | int | Sequence[int | tuple[int, int]]
Sides = tuple[tuple[int, int], ...]


def steps_of(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Returns strides or a dilation, one for each dimension of space."""
    steps = tuple(value) if isinstance(value, Iterable) else (value,) * dims
    _validate.one_each("strides and kernel_dilation", steps, dims)
    return _validate.whole("strides and kernel_dilation", steps, at_least=1)


def sides_of(
    space: Sequence[int], kernel_size: Sequence[int], strides: Sequence[int], padding: Padding, dilation: Sequence[int]
) -> Sides:
    """Returns the number of zeros before and after each dimension of space.

    Args:
      space: the sides of the image.
      kernel_size: the sides of the kernel.
      strides: steps of the window.
      padding: "SAME", "VALID", in one dimension "CAUSAL", an int, or for each dimension an int or a pair (before,
        after).
      dilation: spacing of the kernel's elements.
    """
    if isinstance(padding, str):
        reach = [(size - 1) * spacing + 1 for size, spacing in zip(kernel_size, dilation, strict=True)]
        if padding == "CAUSAL" and len(reach) == 1:
            return ((reach[0] - 1, 0),)
        return tuple((int(before), int(after)) for before, after in lax.padtype_to_pads(space, reach, strides, padding))
    sides: Any = (padding,) * len(space) if isinstance(padding, int) else tuple(padding)
    _validate.one_each("padding", sides, len(space))
    ends = (_validate.whole("padding", tuple(side) if isinstance(side, Iterable) else (side, side)) for side in sides)
    return tuple((before, after) for before, after in ends)


def conv_geometry(
    input_shape: Sequence[int],
    kernel_size: Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> ConvGeometry:
    """Returns the geometry of a convolution over an input of shape ``(batch, *space, channels)``.

    Args:
      input_shape: the shape of the input.
      kernel_size: the sides of the kernel, as many as there are dimensions of space.
      strides: steps of the window: an int, or one for each dimension.
      padding: as in sides_of.
      dilation: spacing of the kernel's elements: an int, or one for each dimension.
      groups: the number of groups of channels.

    Raises:
      ValueError: the kernel does not fit into the padded input, so that the convolution would be empty, or has a
        different number of dimensions.
    """
    size, shape = tuple(kernel_size), tuple(input_shape)
    _validate.dimensions("x", shape, len(size))
    steps, spacing = steps_of(strides, len(size)), steps_of(dilation, len(size))
    sides = sides_of(shape[1:-1], size, steps, padding, spacing)
    _validate.window(shape, size, spacing, sides, tuple(far + 1 for far in _reach(size, spacing)))
    return ConvGeometry(steps, sides, spacing, groups)


def transposed_geometry(
    input_shape: Sequence[int],
    kernel_size: Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
) -> tuple[ConvGeometry, tuple[int, ...]]:
    """Returns the convolution whose transpose a transposed convolution is, and the spatial shape of its result.

    Args:
      input_shape: the shape of the transposed convolution's input, ``(batch, *space, channels)``.
      kernel_size: the sides of the kernel, as many as there are dimensions of space.
      strides: how many times larger space becomes.
      padding: "SAME", "VALID", or the number of zeros around the input after zeros are inserted between its elements.
      dilation: spacing of the kernel's elements.

    Raises:
      TypeError, ValueError: as conv_geometry, or for any other padding.
    """
    size, shape = tuple(kernel_size), tuple(input_shape)
    _validate.dimensions("x", shape, len(size))
    steps, spacing = steps_of(strides, len(size)), steps_of(dilation, len(size))
    reach = _reach(size, spacing)
    spread = tuple((side - 1) * step + 1 for side, step in zip(shape[1:-1], steps, strict=True))
    if isinstance(padding, str):
        _validate.one_of("padding", padding, ("SAME", "VALID"))
        sides = tuple(_transposed_side(far, step, padding) for far, step in zip(reach, steps, strict=True))
    else:
        sides = sides_of(spread, size, steps, padding, spacing)
    _validate.window((shape[0], *spread, shape[-1]), size, spacing, sides, tuple(far + 1 for far in reach))
    space = tuple(side + sum(added) - far for side, added, far in zip(spread, sides, reach, strict=True))
    pairs = tuple((far - before, far - after) for far, (before, after) in zip(reach, sides, strict=True))
    return ConvGeometry(steps, pairs, spacing, 1), space


def _reach(size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """How far a kernel reaches from its first element."""
    return tuple((side - 1) * spacing for side, spacing in zip(size, dilation, strict=True))


def _transposed_side(far: int, step: int, padding: str) -> tuple[int, int]:
    """The zeros before and after a dimension of a transposed convolution, as in lax.conv_transpose."""
    if padding == "VALID":
        return far, max(far, step - 1)
    total = far + step - 1
    before = far if step > far else math.ceil(total / 2)
    return before, total - before
