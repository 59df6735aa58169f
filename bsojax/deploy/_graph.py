"""A network as a graph of maps: what deployed networks consist of, before and after their numbers are made whole.

Every map is an image of shape ``(height, width, channels)``; a vector is an image of one element, a signal one of one
row. A node reads maps that come before it in the tuple of all nodes, identified by their place in it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

Shape: TypeAlias = tuple[int, int, int]
Pair: TypeAlias = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves over an image.

    Attributes:
      strides, dilation: steps of the window, and between the kernel's elements.
      before: zeros in front of the first row and column; negative numbers crop.
    """

    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    before: Pair = (0, 0)


@dataclasses.dataclass(frozen=True)
class Input:
    """The frame of a time step, whole numbers over an input scale."""

    shape: Shape
    name: str = "x"


@dataclasses.dataclass(frozen=True)
class SumPool:
    """Sums over windows that do not overlap; a remainder at the far edges is dropped.

    Attributes:
      repeats_edge: whether, instead, the last row or column is repeated to fill a window that the edge cuts off.
    """

    source: int
    name: str
    window: Pair
    shape: Shape
    repeats_edge: bool = False


@dataclasses.dataclass(frozen=True)
class AnyPool:
    """Whether any neuron of a window fired: the maximum of spikes."""

    source: int
    name: str
    window: Pair
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Flatten:
    """A map as a vector, in the order of rows, columns, channels."""

    source: int
    name: str
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Synapse:
    """Sums of weighted inputs.

    Attributes:
      kernel: shape ``(height, width, channels // groups, out)``; boolean where the weights are signs, float64 where
        they are real, and int32 once they are whole numbers over ``2**weight_bits``.
    """

    source: int
    name: str
    kernel: np.ndarray
    window: Window
    groups: int
    shape: Shape
    weight_bits: int = 0

    @property
    def is_binary(self) -> bool:
        """Whether the weights are signs."""
        return self.kernel.dtype == np.bool_


@dataclasses.dataclass(frozen=True)
class Real:
    """Turns sums into a current, ``gain * sum + shift``, in real numbers.

    Attributes:
      gain, shift: float64 of shape ``(1 or num_steps, 1 or channels)``.
    """

    gain: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Whole:
    """Turns sums into a current in whole numbers, ``(gain * (sum >> before) + half >> after) + shift``.

    Each of the two shifts rounds to the nearest, halves upwards.

    Attributes:
      gain, shift: int32 of shape ``(1 or num_steps, channels)``.
      before, after: bits.
      is_wide: whether the product, rounding included, may exceed 32 bits.
    """

    gain: np.ndarray
    shift: np.ndarray
    before: int
    after: int
    is_wide: bool


Scale = TypeVar("Scale", Real, Whole)


@dataclasses.dataclass(frozen=True)
class Current(Generic[Scale]):
    """Sums as a current: the norm, the bias, the scale of the weights and the area of a pooling window in one.

    Attributes:
      fraction_bits: those of the current, once it is whole; 0 for the readout.
    """

    source: int
    name: str
    scale: Scale
    shape: Shape
    fraction_bits: int = 0


@dataclasses.dataclass(frozen=True)
class Add:
    """The sum of two currents."""

    source: int
    other: int
    name: str
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Neurons:
    """Neurons that leak, integrate, fire and reset; the membrane is measured from rest.

    Attributes:
      decay: the decay of the membrane at each time step; in whole numbers, the numerator over ``2**decay_bits``.
      threshold: in the units of the current.
      hard: whether the membrane is 0 after a spike; otherwise the threshold is subtracted.
      form: the shape of an example in the model.
    """

    source: int
    name: str
    decay: float
    threshold: float
    hard: bool
    shape: Shape
    form: tuple[int, ...]
    decay_bits: int = 0


Node: TypeAlias = Input | SumPool | AnyPool | Flatten | Synapse | Current[Any] | Add | Neurons


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network at one time step; the last node holds the logits of that step, which are summed over time.

    Attributes:
      nodes: in the order in which they are computed.
      num_steps: the number of time steps.
      is_sequence: whether each time step has a frame of its own.
    """

    nodes: tuple[Node, ...]
    num_steps: int
    is_sequence: bool


def sources(node: Node) -> tuple[int, ...]:
    """The places of the nodes that a node reads."""
    if isinstance(node, Input):
        return ()
    return (node.source, node.other) if isinstance(node, Add) else (node.source,)


def holds_spikes(nodes: Sequence[Node], place: int) -> bool:
    """Whether a map consists of zeros and ones from neurons."""
    node = nodes[place]
    while isinstance(node, AnyPool | Flatten):
        node = nodes[node.source]
    return isinstance(node, Neurons)


def first_added(nodes: Sequence[Node], place: int) -> Node:
    """The first of the currents that add up to a current, or the current itself where it is not a sum."""
    while isinstance(node := nodes[place], Add):
        place = node.source
    return node


def over_currents(nodes: Sequence[Node], place: int) -> bool:
    """Whether a map is computed from currents without neurons between."""
    node = nodes[place]
    while not isinstance(node, Input | Neurons | Current | Add):
        node = nodes[node.source]
    return isinstance(node, Current | Add)


def holds_wide_sums(nodes: Sequence[Node], place: int) -> bool:
    """Whether a map consists of sums over currents, pooled or not: they take more bits than other sums."""
    node = nodes[place]
    while isinstance(node, SumPool | AnyPool | Flatten):
        node = nodes[node.source]
    return isinstance(node, Synapse) and over_currents(nodes, node.source)


def holds_real_sums(nodes: Sequence[Node], place: int) -> bool:
    """Whether a map consists of sums of inputs times real weights, pooled or not."""
    node = nodes[place]
    if isinstance(node, Input | Neurons | Current | Add):
        return False
    return (isinstance(node, Synapse) and not node.is_binary) or holds_real_sums(nodes, node.source)
