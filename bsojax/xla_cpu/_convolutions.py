"""Convolutions: XLA's own and, on a CPU, along rows where that keeps all cores busy."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bsojax.xla_cpu._depthwise import convolve_depthwise, is_depthwise
from bsojax.xla_cpu._planes import gathered, joined
from bsojax.xla_cpu._rows import convolve_rows, is_better_by_rows
from bsojax.xla_cpu._switch import by_platform


class ConvGeometry(NamedTuple):
    """The static part of a convolution in one, two or three dimensions of space.

    Attributes:
      strides: steps of the window along each dimension.
      padding: zeros before and after each dimension; negative numbers crop.
      dilation: spacing of the kernel's elements along each dimension.
      groups: the number of groups of channels that do not see each other.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def is_simple(self) -> bool:
        """Whether it has stride 1, one group, no dilation and no crop."""
        steps = {*self.strides, *self.dilation} == {1}
        return steps and self.groups == 1 and all(min(side) >= 0 for side in self.padding)

    @property
    def of_rows(self) -> "ConvGeometry":
        """The geometry, for a convolution of signals, of the same signals as images of one row."""
        return ConvGeometry((1, *self.strides), ((0, 0), *self.padding), (1, *self.dilation), self.groups)

    @property
    def of_planes(self) -> "ConvGeometry":
        """The geometry, for a convolution of volumes, of its planes, without the depth."""
        return ConvGeometry(self.strides[1:], self.padding[1:], self.dilation[1:], self.groups)


def convolve(geometry: ConvGeometry, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of an image, ``(batch, *space, in)``, with a kernel, ``(*size, in // groups, out)``."""
    return by_platform(
        image,
        kernel,
        cpu=lambda image, kernel: convolve_on_cpu(geometry, image, kernel),
        default=lambda image, kernel: plain_convolve(image, kernel, *geometry),
    )


def convolve_on_cpu(geometry: ConvGeometry, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution in the way that is fastest on a CPU."""
    if image.ndim == 3:
        return convolve_on_cpu(geometry.of_rows, image[:, None], kernel[None])[:, 0]
    if is_depthwise(geometry.groups, image.shape, kernel.shape):
        return convolve_depthwise(geometry, image, kernel)
    if geometry.groups == 1 and image.ndim == 5:
        images, planes = gathered(geometry, image, kernel.shape[0])
        found = convolve_on_cpu(geometry.of_planes, images, joined(kernel))
        return found.reshape(image.shape[0], planes, *found.shape[1:])
    if geometry.is_simple and is_better_by_rows(image.shape, kernel.shape):
        return convolve_rows(image, kernel, geometry.padding)
    return plain_convolve(image, kernel, *geometry)


def plain_convolve(
    image: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, ...],
    groups: int = 1,
) -> jax.Array:
    """Returns XLA's own convolution; the arguments are the fields of ConvGeometry."""
    if any(min(side) < 0 for side in padding):
        # Padded by hand: where a negative padding before an axis meets a positive one after it, XLA's convolution on a
        # CPU reads past the image (jaxlib 0.10). Padded first, then cropped: the crop may be wider than the image.
        for bound in (max, min):
            sides = [(bound(before, 0), bound(after, 0), 0) for before, after in padding]
            image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
        padding = [(0, 0)] * len(strides)
    layout = "DHW"[-len(strides) :]
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=(f"N{layout}C", f"{layout}IO", f"N{layout}C"),
        feature_group_count=groups,
    )
