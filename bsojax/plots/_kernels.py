"""Binary kernels as pictures."""

from typing import Any

import numpy as np

from bsojax import _validate
from bsojax.plots._axes import Axes, axes, finish
from bsojax.signs import to_weights

_GAP = 0.45
"""The grey between kernels, on a scale from -1, black, at 0 to +1, white, at 1."""


def kernels(signs: Any, *, count: int = 8, ax: Axes | None = None) -> Axes:
    """Draws the binary kernels of a layer: +1 white, -1 black.

    Use it to see what a layer looks for, or that kernels are copies of each other:
    ``plots.kernels(state.signs["conv_1"]["kernel"])``.

    Args:
      signs: a leaf of signs, packed or not: of a convolution in one or two dimensions, ``(*kernel_size, in, out)``, or
        of a dense layer, ``(in, out)``, which is drawn as one matrix.
      count: the most input channels, from left to right, and output channels, from top to bottom, whose kernels are
        drawn; a dense layer is drawn in full.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes.

    Raises:
      ValueError: count < 1, or signs has another number of axes.
    """
    weights = np.asarray(to_weights(signs))
    _validate.kernel_axes("signs", weights.ndim)
    _validate.whole("count", (count,), at_least=1)
    if weights.ndim == 2:
        ax = axes(ax)
        ax.imshow(weights, cmap="gray", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        finish(ax, f"output (of {weights.shape[1]})", f"input (of {weights.shape[0]})").grid(visible=False)
        return ax
    if weights.ndim == 3:
        weights = weights[None]
    height, width, inputs, outputs = weights.shape
    rows, columns = min(outputs, count), min(inputs, count)
    picture = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1), _GAP)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + 1) + 1, column * (width + 1) + 1
            picture[top : top + height, left : left + width] = weights[:, :, column, row] > 0
    ax = axes(ax, 5.0, 5.0)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([column * (width + 1) + (width + 1) / 2 for column in range(columns)], [*map(str, range(columns))])
    ax.set_yticks([row * (height + 1) + (height + 1) / 2 for row in range(rows)], [*map(str, range(rows))])
    ax.tick_params(length=0)
    finish(ax, f"input channel (of {inputs})", f"output channel (of {outputs})").grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax
