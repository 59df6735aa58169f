"""Proves from whole numbers alone that no input produces a number that exceeds its width."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bsojax.deploy import _bounds
from bsojax.deploy._bounds import SUM_BITS, WIDE_BITS, Interval
from bsojax.deploy._graph import (
    Add,
    AnyPool,
    Current,
    Flatten,
    Graph,
    Input,
    Neurons,
    Node,
    SumPool,
    Synapse,
    holds_wide_sums,
)


class Proof(NamedTuple):
    """The bounds proven for a graph.

    Attributes:
      intervals: for each node's map, the smallest and the largest value that any input can produce; for the last node,
        summed over time.
      membranes: by the place of each node of neurons, the bounds of their membranes when the spike is decided, at each
        time step.
    """

    intervals: tuple[Interval, ...]
    membranes: Mapping[int, Interval]


class TooWideError(ValueError):
    """A number may exceed its width.

    Attributes:
      name: the name of the node.
      most: the largest magnitude.
      bits: the width.
    """

    def __init__(self, name: str, most: int, bits: int) -> None:
        super().__init__(f"{name!a}: its numbers may reach {most:,}, which does not fit into {bits} bits")
        self.name, self.most, self.bits = name, most, bits


class Proving:
    """A proof under construction, node by node.

    Attributes:
      nodes: the whole nodes proven so far.
      intervals, membranes: see Proof.
    """

    def __init__(self, graph: Graph, input_min: int, input_max: int, membrane_bits: int) -> None:
        self.last, self.num_steps = len(graph.nodes) - 1, graph.num_steps
        self.input_min, self.input_max, self.membrane_bits = input_min, input_max, membrane_bits
        self.nodes: list[Node] = []
        self.intervals: list[Interval] = []
        self.membranes: dict[int, Interval] = {}

    def add(self, node: Node) -> None:
        """Proves the next node.

        Raises:
          TooWideError: a number may exceed its width.
          ValueError: the node could not be computed.
        """
        self.nodes.append(node)
        self.intervals.append(_RULES[type(node)](self, node, len(self.nodes) - 1))


def proven(graph: Graph, input_min: int, input_max: int, membrane_bits: int) -> Proof:
    """Returns the bounds of a graph of integers; refuses one in which a number may exceed its width.

    Sums, currents and logits fit into 32 bits at every step of their summation; sums over currents fit into 62, and
    into 32 without the bits that their current drops; products of gains fit into 32 except where they are marked as
    wide; membranes fit into membrane_bits.

    Args:
      graph: one whose nodes fit each other (see check_structure).
      input_min: the smallest input.
      input_max: the largest input.
      membrane_bits: the width of membranes, including the sign.

    Raises:
      ValueError: what does not fit, with the name of the node; without a full stop.
    """
    proving = Proving(graph, input_min, input_max, membrane_bits)
    for node in graph.nodes:
        proving.add(node)
    return Proof(tuple(proving.intervals), proving.membranes)


def _within(node: Node, most: int, bits: int) -> None:
    if most >= 2 ** (bits - 1):
        raise TooWideError(node.name, most, bits)


def _held(node: Node, found: Interval, bits: int = SUM_BITS) -> Interval:
    _within(node, found.most, bits)
    return found


def _input(proving: Proving, node: Input, place: int) -> Interval:
    return _bounds.constant(proving.input_min, proving.input_max, node.shape[-1])


def _sum_pool(proving: Proving, node: SumPool, place: int) -> Interval:
    return _held(node, _bounds.pooled(proving.intervals[node.source], math.prod(node.window)))


def _any_pool(proving: Proving, node: AnyPool, place: int) -> Interval:
    return proving.intervals[node.source]


def _flatten(proving: Proving, node: Flatten, place: int) -> Interval:
    high, wide, _ = proving.nodes[node.source].shape
    return _bounds.flattened(proving.intervals[node.source], high * wide)


def _synapse(proving: Proving, node: Synapse, place: int) -> Interval:
    found = _bounds.weighted(node, proving.intervals[node.source])
    if holds_wide_sums(proving.nodes, place):
        return _held(node, found, WIDE_BITS)
    # For signs, C counts ones, and subtracts the number of spikes from twice as many.
    _within(node, found.most * (1 + node.is_binary), SUM_BITS)
    return found


def _current(proving: Proving, node: Current[Any], place: int) -> Interval:
    scale, read = node.scale, proving.intervals[node.source]
    if not (0 <= scale.before < 32 and 0 <= scale.after < 62):
        raise ValueError(f"{node.name!a}: nothing is shifted by {scale.before} and {scale.after} bits")
    dropped = Interval(*(_bounds.rounded(end, scale.before) for end in read))
    _within(node, dropped.most, SUM_BITS)
    _within(node, _bounds.product(scale, read), 64 if scale.is_wide else SUM_BITS)
    _within(node, _bounds.widest(scale, read), SUM_BITS)
    if place < proving.last:
        return _bounds.scaled(scale, read)
    total, most = _bounds.summed(scale, read, proving.num_steps)
    _within(node, most, SUM_BITS)
    return total


def _add(proving: Proving, node: Add, place: int) -> Interval:
    return _held(node, _bounds.added(proving.intervals[node.source], proving.intervals[node.other]))


def _neurons(proving: Proving, node: Neurons, place: int) -> Interval:
    threshold, decay = int(node.threshold), int(node.decay)
    if not 0 <= node.decay_bits < 32 or not 0 <= decay <= 2**node.decay_bits:
        raise ValueError(f"{node.name!a}: {decay} / 2**{node.decay_bits} is not a decay")
    if threshold < 1:
        raise ValueError(f"{node.name!a}: a threshold is at least 1, not {threshold}")
    _within(node, threshold, proving.membrane_bits)
    charged = _bounds.charged(node, proving.intervals[node.source], proving.num_steps)
    proving.membranes[place] = _held(node, charged, proving.membrane_bits)
    return _bounds.constant(0, 1, node.shape[-1])


_RULES: dict[type, Callable[[Proving, Any, int], Interval]] = {
    Input: _input,
    SumPool: _sum_pool,
    AnyPool: _any_pool,
    Flatten: _flatten,
    Synapse: _synapse,
    Current: _current,
    Add: _add,
    Neurons: _neurons,
}
