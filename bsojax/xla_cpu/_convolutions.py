"""Convolutions: XLA's own, and on a CPU along rows where that keeps all cores busy."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bsojax.xla_cpu._rows import convolve_rows, is_better_by_rows
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


def convolve(geometry: ConvGeometry, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of an NHWC image with an HWIO kernel."""
    return by_platform(
        image,
        kernel,
        cpu=lambda image, kernel: convolve_on_cpu(geometry, image, kernel),
        default=lambda image, kernel: plain_convolve(image, kernel, *geometry),
    )


def convolve_on_cpu(geometry: ConvGeometry, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution as a CPU does it fastest."""
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
