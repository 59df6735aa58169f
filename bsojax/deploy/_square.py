"""Convolutions whose kernel is square, with the same zeros on both sides of the image."""

from typing import NamedTuple

import numpy as np

from bsojax.deploy._graph import Pair, Window


class Square(NamedTuple):
    """A convolution with a square kernel.

    Attributes:
      kernel: shape ``(side, side, channels, out)``.
      strides, dilation: of rows and columns.
      padding: zeros before the first row or column and after the last.
    """

    kernel: np.ndarray
    strides: Pair
    padding: Pair
    dilation: Pair


class _Axis(NamedTuple):
    """How one side of a kernel grows to a given length.

    Attributes:
      front, back: zeros before and after its elements.
      padding, stride: those with which it then moves.
    """

    front: int
    back: int
    padding: int
    stride: int


def ungrouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """A kernel with groups as one that reads all channels, most of them with weights of 0."""
    high, wide, channels, out = kernel.shape
    whole = np.zeros((high, wide, channels * groups, out), kernel.dtype)
    for group in range(groups):
        outs = slice(group * out // groups, (group + 1) * out // groups)
        whole[:, :, group * channels : (group + 1) * channels, outs] = kernel[..., outs]
    return whole


def squared(kernel: np.ndarray, window: Window, image: Pair, out: Pair) -> Square | None:
    """Returns an equivalent square convolution; None where zeros around the kernel cannot make it square.

    This happens where both sides move in steps of 1, and one shrinks by an odd, the other by an even number of
    elements.

    Args:
      kernel: shape ``(height, width, channels, out)``.
      window: how it moves.
      image: sides of its input.
      out: sides of its output.
    """
    high, wide = kernel.shape[:2]
    if high == wide and all(_is_symmetric(high, window, image, out, axis) for axis in (0, 1)):
        return Square(kernel, window.strides, window.before, window.dilation)
    kernel = _undilated(kernel, window.dilation)
    for side in range(max(kernel.shape[:2]), 2 * max(*kernel.shape[:2], *image) + 2 * max(map(abs, window.before)) + 2):
        rows, columns = (_grown(side, kernel.shape[axis], window, image, out, axis) for axis in (0, 1))
        if rows is not None and columns is not None:
            grown = np.pad(kernel, ((rows.front, rows.back), (columns.front, columns.back), (0, 0), (0, 0)))
            return Square(grown, (rows.stride, columns.stride), (rows.padding, columns.padding), (1, 1))
    return None


def _is_symmetric(side: int, window: Window, image: Pair, out: Pair, axis: int) -> bool:
    """Whether as many zeros after the image as before it lead to the same outputs."""
    before, reach = window.before[axis], window.dilation[axis] * (side - 1) + 1
    return before >= 0 and (image[axis] + 2 * before - reach) // window.strides[axis] + 1 == out[axis]


def _undilated(kernel: np.ndarray, dilation: Pair) -> np.ndarray:
    """A kernel with the zeros between its elements."""
    sides = [spacing * (side - 1) + 1 for side, spacing in zip(kernel.shape[:2], dilation, strict=True)]
    whole = np.zeros((*sides, *kernel.shape[2:]), kernel.dtype)
    whole[:: dilation[0], :: dilation[1]] = kernel
    return whole


def _grown(side: int, size: int, window: Window, image: Pair, out: Pair, axis: int) -> _Axis | None:
    """How one axis of a kernel grows to the given length, with the fewest zeros around the image."""
    before, stride = window.before[axis], window.strides[axis]
    for padding in range(max(0, before), side - size + before + 1):
        last = image[axis] + 2 * padding - side
        stride = max(stride, last + 1) if out[axis] == 1 else stride  # with a single position, any stride will do
        if stride * (out[axis] - 1) <= last < stride * out[axis]:
            return _Axis(padding - before, side - size - padding + before, padding, stride)
    return None
