"""A growing graph of the Neuromorphic Intermediate Representation, in the form that its readers accept unchanged.

NIR can express more than they read. They agree on square convolutions with a bias and without groups, on sums over
windows, on neurons whose resistance is 1, and on nodes that need not know the batch axis.
"""

import itertools
import re
from typing import Any, NamedTuple

import numpy as np

from bsojax import _validate
from bsojax.deploy._graph import Shape, Window
from bsojax.deploy._square import squared

try:
    import nir as nir
except ImportError as error:
    raise ImportError("to_nir: needs a package; pip install 'bsojax[nir]'.") from error


class Map(NamedTuple):
    """A map of the network in NIR.

    Attributes:
      names: the NIR nodes whose outputs add up to it.
      unit: the value there of one unit of it.
      shape: as an image; the vector of an image's pixels remains the image.
    """

    names: tuple[str, ...]
    unit: float
    shape: Shape


class Writer:
    """A growing NIR graph.

    Attributes:
      dt: the time step in seconds.
      is_vector: whether frames, and so all maps, are vectors.
      nodes, edges: of the NIR graph.
    """

    def __init__(self, dt: float, is_vector: bool) -> None:
        self.dt, self.is_vector = dt, is_vector
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []

    def append(self, name: str, node: Any, read: Map | None = None) -> tuple[str, ...]:
        """Adds a NIR node that reads a map; returns its name, which is unique."""
        plain = re.sub(r"\W+", "_", name).strip("_")
        names = itertools.chain((plain,), (f"{plain}_{count}" for count in itertools.count(2)))
        found = next(name for name in names if name not in self.nodes)
        self.nodes[found] = node
        self.edges += [(source, found) for source in (read.names if read else ())]
        return (found,)

    def form(self, shape: Shape) -> tuple[int, ...]:
        """The shape of a map in NIR, channels first."""
        high, wide, channels = shape
        return (channels,) if self.is_vector else (channels, high, wide)

    def weigh(
        self, name: str, read: Map, kernel: np.ndarray, bias: np.ndarray, shape: Shape, window: Window
    ) -> tuple[str, ...]:
        """Adds sums of weighted inputs; kernel of shape ``(height, width, channels, out)``; returns their name."""
        bias = bias.astype(np.float32)
        if self.is_vector:
            return self.append(name, nir.Affine(weight=kernel[0, 0].T.astype(np.float32), bias=bias), read)
        made = squared(kernel, window, read.shape[:2], shape[:2])
        if made is None:
            why = (
                "NIR's shapes take kernels for square, and zeros cannot make this one so; give it a square kernel and "
                "as many zeros behind the image as before it"
            )
            _validate.not_in_nir(f"'{name}'", why)
        conv = nir.Conv2d(
            input_shape=read.shape[:2],
            weight=np.ascontiguousarray(made.kernel.transpose(3, 2, 0, 1), np.float32),
            stride=made.strides,
            padding=made.padding,
            dilation=made.dilation,
            groups=1,
            bias=bias,
        )
        return self.append(name, conv, read)

    def scale(
        self, name: str, read: Map, gain: np.ndarray, shift: np.ndarray, is_flat: bool = False
    ) -> tuple[tuple[str, ...], Shape]:
        """Adds ``gain * map + shift``, with numbers per channel, or per pixel too; returns its name and shape."""
        gains, shifts = (by_channel(given, read.shape[-1]) for given in (gain, shift))
        if gains is not None and shifts is not None and not is_flat:
            return self.weigh(name, read, np.diag(gains)[None, None], shifts, read.shape, Window()), read.shape
        # Differences in space are expressed by a window that is the whole image.
        shape, kernel = (1, 1, len(gain)), np.diag(gain).reshape(*read.shape, -1)
        return self.weigh(name, read, kernel, shift, shape, Window()), shape

    def fire(self, name: str, read: Map, leak: float, threshold: float, hard: bool) -> Map:
        """Adds neurons, whose membranes are 0 at the start."""
        shape = self.form(read.shape)
        below = np.float32(threshold)
        # NIR's neurons fire above their threshold, the library's also at it.
        below = np.nextafter(below, np.float32(0)) if below >= threshold else below
        level, rest = np.full(shape, below, np.float64), np.zeros(shape)
        node = (
            nir.LIF(tau=rest + self.dt / leak, r=rest + 1, v_leak=rest, v_threshold=level, v_reset=rest)
            if leak
            else nir.IF(r=rest + 1 / self.dt, v_threshold=level, v_reset=rest)
        )
        node.metadata = {"reset": "zero" if hard else "subtract", "threshold": threshold}
        return Map(self.append(name, node, read), 1.0, read.shape)

    def pool(self, name: str, read: Map, window: tuple[int, int], shape: Shape) -> Map:
        """Adds sums over windows."""
        size = np.array(window)
        node = nir.SumPool2d(kernel_size=size, stride=size, padding=np.zeros(2, int))
        return Map(self.append(name, node, read), read.unit, (*shape[:2], read.shape[-1]))


def by_channel(given: np.ndarray, channels: int) -> np.ndarray | None:
    """Numbers of all channels and pixels reduced to one per channel; None where they differ in space."""
    pixels = given.reshape(-1, channels)
    return pixels[0] if np.all(pixels == pixels[0]) else None
