"""Small two-dimensional convolutions as one-dimensional ones along rows and as matrix products, for XLA on a CPU.

XLA (jaxlib 0.10) runs small two-dimensional convolutions on one core, and distributes the others over all of them.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

SMALL_OUTPUTS, SMALL_KERNEL = 128, 2**17
"""With fewer output channels or kernel elements, a two-dimensional convolution runs on one core (measured)."""

FEW_INPUTS = 64
"""With fewer input channels it is cheaper to gather rows of the input than to add rows of the output (measured)."""

Padding = tuple[tuple[int, int], ...]


WORTH = 2**23
"""With fewer multiply-adds a second core gains nothing."""

LARGE = 2**23
"""From this many elements on, an intermediate array costs more memory than the second core is worth."""


def is_better_by_rows(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> bool:
    """Whether a convolution of stride 1 would run on one core, and can use all without much more memory."""
    if not all(isinstance(size, int) for size in image_shape):
        return False  # a symbolic batch, of jax.export, has no size to compare
    height, width, inputs, outputs = kernel_shape
    few = outputs < SMALL_OUTPUTS or height * width * inputs * outputs < SMALL_KERNEL
    channels = height * (inputs if _gathers(kernel_shape) else outputs)
    pixels = math.prod(image_shape[:3])
    worth = pixels * math.prod(kernel_shape) >= WORTH
    return few and worth and height > 1 and inputs > 1 and pixels * channels < LARGE


def convolve_rows(image: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Returns the convolution of stride 1, without dilation and groups.

    Args:
      image: shape ``(batch, height, width, in)``.
      kernel: shape ``(height, width, in, out)``, no higher than the padded image.
      padding: zeros around height and width, none negative.
    """
    size, _, inputs, outputs = kernel.shape
    rows = image.shape[1] + sum(padding[0]) - size + 1
    if _gathers(kernel.shape):
        padded = jnp.pad(image, ((0, 0), padding[0], (0, 0), (0, 0)))
        gathered = jnp.concatenate([padded[:, first : first + rows] for first in range(size)], axis=-1)
        joined = kernel.transpose(1, 0, 2, 3).reshape(-1, size * inputs, outputs)
        # Behind a barrier, or the compiler would gather again for each element of the kernel.
        return _along_rows(lax.optimization_barrier(gathered), joined, padding[1])
    # All rows of the kernel over all rows of the image; the parts that belong to one row of the output are then added
    # up.
    apart = _along_rows(image, kernel.transpose(1, 2, 0, 3).reshape(-1, inputs, size * outputs), padding[1])
    apart = apart.reshape(*apart.shape[:3], size, outputs)
    padded = jnp.pad(apart, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    total = padded[:, :rows, :, 0]
    for first in range(1, size):
        total = total + padded[:, first : first + rows, :, first]
    return total


def kernel_gradient(
    image: jax.Array, g: jax.Array, kernel_shape: tuple[int, ...], padding: Padding
) -> jax.Array | None:
    """Returns the gradient of the kernel of a convolution of stride 1, or None where XLA's own form is better.

    Args:
      image: shape ``(batch, height, width, in)``.
      g: the gradient of the convolution, of shape ``(batch, rows, columns, out)``.
      kernel_shape: ``(height, width, in, out)``.
      padding: zeros around height and width, none negative.
    """
    outputs = kernel_shape[3]
    if outputs >= SMALL_OUTPUTS or math.prod(image.shape[:3]) * math.prod(kernel_shape) < WORTH:
        return None
    if math.prod(kernel_shape[:3]) <= outputs:  # a first layer: patches are no larger than the output
        return kernel_gradient_by_patches(image, g, kernel_shape, padding)
    return kernel_gradient_by_rows(image, g, kernel_shape, padding) if image.size < LARGE else None


def kernel_gradient_by_rows(
    image: jax.Array, g: jax.Array, kernel_shape: tuple[int, ...], padding: Padding
) -> jax.Array:
    """Returns the gradient as a convolution along the width per row of the kernel; arguments as in kernel_gradient."""
    height, _, inputs, outputs = kernel_shape
    batch, rows, columns, _ = g.shape
    # The batch before the rows: joined in this order they stay split over the devices of a mesh.
    turned = jnp.pad(image.transpose(3, 2, 0, 1), ((0, 0), (0, 0), (0, 0), padding[0]))
    # Joined before the barrier, or XLA (jaxlib 0.12) would copy the array on both sides of it.
    errors = g.transpose(2, 0, 1, 3).reshape(columns, batch * rows, outputs)
    turned, errors = lax.optimization_barrier((turned, errors))
    found = []
    for first in range(height):
        seen = lax.optimization_barrier(turned[..., first : first + rows])
        found.append(
            lax.conv_general_dilated(
                seen.reshape(inputs, image.shape[2], batch * rows),
                errors,
                (1,),
                [padding[1]],
                dimension_numbers=("NWC", "WIO", "NWC"),
            )
        )
    return jnp.stack(found).transpose(0, 2, 1, 3)


def kernel_gradient_by_patches(
    image: jax.Array, g: jax.Array, kernel_shape: tuple[int, ...], padding: Padding
) -> jax.Array:
    """Returns the gradient as one matrix product; arguments as in kernel_gradient."""
    rows, columns = g.shape[1:3]
    padded = jnp.pad(image, ((0, 0), *padding, (0, 0)))
    places = [(row, column) for row in range(kernel_shape[0]) for column in range(kernel_shape[1])]
    seen = [padded[:, row : row + rows, column : column + columns] for row, column in places]
    patches = lax.optimization_barrier(jnp.concatenate(seen, axis=-1)).reshape(g.size // g.shape[-1], -1)
    gradient: jax.Array = (patches.T @ g.reshape(-1, g.shape[-1])).reshape(kernel_shape)
    return gradient


def _gathers(kernel_shape: tuple[int, ...]) -> bool:
    """Whether rows of the input are gathered instead of rows of the output added."""
    return kernel_shape[2] < min(FEW_INPUTS, kernel_shape[3])


def _along_rows(image: jax.Array, kernel: jax.Array, padding: tuple[int, int]) -> jax.Array:
    batch, height, width, inputs = image.shape
    out = lax.conv_general_dilated(
        image.reshape(batch * height, width, inputs), kernel, (1,), [padding], dimension_numbers=("NWC", "WIO", "NWC")
    )
    return out.reshape(batch, height, *out.shape[1:])
