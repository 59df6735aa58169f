"""Proves from whole numbers alone that no input makes a number that does not fit into its width."""

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
    """What is proven of a graph.

    Attributes:
      intervals: of each node's map, the least and the largest value that any input can lead to; of the last, summed
        over time.
      membranes: by the place of each node of neurons, of their membranes when the spike is decided, at each time step.
    """

    intervals: tuple[Interval, ...]
    membranes: Mapping[int, Interval]


class _Proving(NamedTuple):
    graph: Graph
    input_min: int
    input_max: int
    membrane_bits: int
    intervals: list[Interval]
    membranes: dict[int, Interval]


def proven(graph: Graph, input_min: int, input_max: int, membrane_bits: int) -> Proof:
    """Returns the bounds of a graph of whole numbers; refuses one in which a number may exceed its width.

    Sums, currents and logits fit into 32 bits, at every step of their sums; sums over currents into 62, and without
    the bits that their current drops into 32; products of gains into 32 but where they are said to be wide; membranes
    into membrane_bits.

    Args:
      graph: one whose nodes fit each other (see check_structure).
      input_min: the least input.
      input_max: the largest.
      membrane_bits: the width of membranes, sign included.

    Raises:
      ValueError: what does not fit, by the name of the node; without a full stop.
    """
    proving = _Proving(graph, input_min, input_max, membrane_bits, [], {})
    for place, node in enumerate(graph.nodes):
        proving.intervals.append(_RULES[type(node)](proving, node, place))
    return Proof(tuple(proving.intervals), proving.membranes)


def _within(node: Node, most: int, bits: int) -> None:
    if most >= 2 ** (bits - 1):
        raise ValueError(f"{node.name!a}: its numbers may reach {most:,}, which does not fit into {bits} bits")


def _held(node: Node, found: Interval, bits: int = SUM_BITS) -> Interval:
    _within(node, found.most, bits)
    return found


def _input(proving: _Proving, node: Input, place: int) -> Interval:
    return _bounds.constant(proving.input_min, proving.input_max, node.shape[-1])


def _sum_pool(proving: _Proving, node: SumPool, place: int) -> Interval:
    return _held(node, _bounds.pooled(proving.intervals[node.source], math.prod(node.window)))


def _any_pool(proving: _Proving, node: AnyPool, place: int) -> Interval:
    return proving.intervals[node.source]


def _flatten(proving: _Proving, node: Flatten, place: int) -> Interval:
    high, wide, _ = proving.graph.nodes[node.source].shape
    return _bounds.flattened(proving.intervals[node.source], high * wide)


def _synapse(proving: _Proving, node: Synapse, place: int) -> Interval:
    found = _bounds.weighted(node, proving.intervals[node.source])
    if holds_wide_sums(proving.graph.nodes, place):
        return _held(node, found, WIDE_BITS)
    # Beside signs C counts ones, and takes the number of spikes from twice as many.
    return _held(node, found, SUM_BITS - node.is_binary)


def _current(proving: _Proving, node: Current[Any], place: int) -> Interval:
    scale, read = node.scale, proving.intervals[node.source]
    if not (0 <= scale.before < 32 and 0 <= scale.after < 62):
        raise ValueError(f"{node.name!a}: nothing is shifted by {scale.before} and {scale.after} bits")
    dropped = Interval(*(_bounds.rounded(end, scale.before) for end in read))
    _within(node, dropped.most, SUM_BITS)
    _within(node, _bounds.product(scale, read), 64 if scale.is_wide else SUM_BITS)
    _within(node, _bounds.widest(scale, read), SUM_BITS)
    if place < len(proving.graph.nodes) - 1:
        return _bounds.scaled(scale, read)
    total, most = _bounds.summed(scale, read, proving.graph.num_steps)
    _within(node, most, SUM_BITS)
    return total


def _add(proving: _Proving, node: Add, place: int) -> Interval:
    return _held(node, _bounds.added(proving.intervals[node.source], proving.intervals[node.other]))


def _neurons(proving: _Proving, node: Neurons, place: int) -> Interval:
    threshold, decay = int(node.threshold), int(node.decay)
    if not 0 <= node.decay_bits < 32 or not 0 <= decay <= 2**node.decay_bits:
        raise ValueError(f"{node.name!a}: {decay} / 2**{node.decay_bits} is no decay")
    if threshold < 1:
        raise ValueError(f"{node.name!a}: a threshold is at least 1, not {threshold}")
    _within(node, threshold, proving.membrane_bits)
    charged = _bounds.charged(node, proving.intervals[node.source], proving.graph.num_steps)
    proving.membranes[place] = _held(node, charged, proving.membrane_bits)
    return _bounds.constant(0, 1, node.shape[-1])


_RULES: dict[type, Callable[[_Proving, Any, int], Interval]] = {
    Input: _input,
    SumPool: _sum_pool,
    AnyPool: _any_pool,
    Flatten: _flatten,
    Synapse: _synapse,
    Current: _current,
    Add: _add,
    Neurons: _neurons,
}
