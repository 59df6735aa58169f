"""Makes the numbers of a graph whole, with as many bits as its bounds prove to be safe."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsojax import _validate
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
    Real,
    SumPool,
    Synapse,
    Whole,
    over_currents,
)

MOST_FRACTION_BITS = 24

LEAST_GAIN = 2**14
"""The least gain of signs whose products fit into 32 bits: half of one of it is lost, times what the sum is."""


class Numbers(NamedTuple):
    """The numbers that a network takes, and those that it computes with.

    Attributes:
      input_scale: inputs are whole numbers over it.
      input_min, input_max: the least and the largest of them.
      membrane_bits: width of membranes, sign included.
      weight_bits: the most bits of a real weight, sign included.
    """

    input_scale: float
    input_min: int
    input_max: int
    membrane_bits: int
    weight_bits: int


class WholeGraph(NamedTuple):
    """A graph of whole numbers.

    Attributes:
      graph: the graph.
      logit_scale: what a logit of one is, in real numbers.
    """

    graph: Graph
    logit_scale: float


class _Made(NamedTuple):
    """A node in whole numbers.

    Attributes:
      node: the node.
      interval: of its map.
      unit: what a one of its map is, in real numbers.
      most: the largest magnitude that occurs in it.
      width: the bits that it must fit into.
      coarser: the node of which the precision is to be lowered where it does not.
    """

    node: Node
    interval: Interval
    unit: float
    most: int
    width: int
    coarser: int


class _Attempt:
    """A graph that is made whole at a given precision, node by node.

    Attributes:
      graph: in real numbers.
      numbers: what it takes and computes with.
      precision: the bits behind the point of each node's weights or current.
      made: the nodes so far.
    """

    def __init__(self, graph: Graph, numbers: Numbers, precision: Sequence[int]) -> None:
        self.graph, self.numbers, self.precision = graph, numbers, precision
        self.made: list[_Made] = []

    def coarser(self, place: int) -> int:
        """The node whose precision says how large the numbers of a map are."""
        node = self.graph.nodes[place]
        passes = isinstance(node, SumPool | AnyPool | Flatten) or (isinstance(node, Synapse) and node.is_binary)
        return self.coarser(node.source) if passes else place  # type: ignore[union-attr]


def whole(graph: Graph, numbers: Numbers) -> WholeGraph:
    """Returns a graph in whole numbers.

    Weights and currents start with more bits than fit; where the bounds of a number exceed its width, the precision of
    what it is made of is lowered until they do not.

    Raises:
      ValueError: a layer's numbers do not fit at any precision.
    """
    groups = _groups(graph.nodes)
    precision = [_first_precision(node, numbers) for node in graph.nodes]
    while True:
        attempt = _Attempt(graph, numbers, [precision[group] for group in groups])
        too_wide = _run(attempt)
        if too_wide is None:
            nodes = tuple(made.node for made in attempt.made)
            return WholeGraph(dataclasses.replace(graph, nodes=nodes), attempt.made[-1].unit)
        precision[groups[too_wide.coarser]] -= max(1, too_wide.most.bit_length() + 1 - too_wide.width)
        if precision[groups[too_wide.coarser]] < -MOST_FRACTION_BITS:
            _validate.too_wide(too_wide.node.name, too_wide.most, too_wide.width)


def _run(attempt: _Attempt) -> _Made | None:
    """Makes nodes whole; stops at one that does not fit, and returns it."""
    for place, node in enumerate(attempt.graph.nodes):
        is_readout = place == len(attempt.graph.nodes) - 1
        rule = _readout if is_readout else RULES[type(node)]
        made = rule(attempt, node, place)
        if made.most >= 2 ** (made.width - 1):
            return made
        attempt.made.append(made)
    return None


def _first_precision(node: Node, numbers: Numbers) -> int:
    """The most bits behind the point of a weight or a current."""
    if isinstance(node, Synapse) and not node.is_binary:
        largest, width = float(np.max(np.abs(node.kernel))) or 1.0, numbers.weight_bits - 1
        bits = width - math.frexp(largest)[1]
        return bits - (round(math.ldexp(largest, bits)) >= 2**width)
    return MOST_FRACTION_BITS


def _groups(nodes: Sequence[Node]) -> list[int]:
    """For each node the first of those whose currents are added to each other, which share their fraction bits."""
    groups = list(range(len(nodes)))
    for place, node in enumerate(nodes):
        if isinstance(node, Add):
            joined = {groups[node.source], groups[node.other], place}
            groups = [min(joined) if group in joined else group for group in groups]
    return groups


def _input(attempt: _Attempt, node: Input, place: int) -> _Made:
    low, high, scale = attempt.numbers.input_min, attempt.numbers.input_max, attempt.numbers.input_scale
    found = _bounds.constant(low, high, node.shape[-1])
    return _Made(node, found, 1 / scale, found.most, SUM_BITS, place)


def _sum_pool(attempt: _Attempt, node: SumPool, place: int) -> _Made:
    read = attempt.made[node.source]
    found = _bounds.pooled(read.interval, math.prod(node.window))
    return _Made(node, found, read.unit, found.most, SUM_BITS, attempt.coarser(node.source))


def _any_pool(attempt: _Attempt, node: AnyPool, place: int) -> _Made:
    read = attempt.made[node.source]
    return _Made(node, read.interval, read.unit, read.most, SUM_BITS, place)


def _flatten(attempt: _Attempt, node: Flatten, place: int) -> _Made:
    read, (high, wide, _) = attempt.made[node.source], attempt.graph.nodes[node.source].shape
    found = _bounds.flattened(read.interval, high * wide)
    return _Made(node, found, read.unit, found.most, WIDE_BITS, place)


def _synapse(attempt: _Attempt, node: Synapse, place: int) -> _Made:
    read, made, unit = attempt.made[node.source], node, attempt.made[node.source].unit
    if not node.is_binary:
        bits = attempt.precision[place]
        weights = np.rint(np.ldexp(node.kernel, bits)).astype(np.int32)
        made, unit = dataclasses.replace(node, kernel=weights, weight_bits=bits), math.ldexp(unit, -bits)
    found = _bounds.weighted(made, read.interval)
    width = WIDE_BITS if over_currents(attempt.graph.nodes, node.source) else SUM_BITS
    return _Made(made, found, unit, found.most, width, attempt.coarser(place))


def _current(attempt: _Attempt, node: Current[Real], place: int) -> _Made:
    read, bits, channels = attempt.made[node.source], attempt.precision[place], node.shape[-1]
    before = _bounds.bits_to_drop(read.interval.most)
    gain, shift = (np.broadcast_to(given, (len(given), channels)) for given in (node.scale.gain, node.scale.shift))
    gain = gain * math.ldexp(read.unit, before + bits)
    shift = np.rint(np.ldexp(shift, bits))
    largest, sums = float(np.max(np.abs(gain))) or 1.0, max(1, read.interval.most >> before)
    # Signs are many, and their products shall fit into 32 bits; a real weight's sum is exact to its last bit.
    binary = isinstance(read.node, Synapse) and read.node.is_binary
    after = min(_bits_within(2 ** (SUM_BITS - 2) / (largest * sums)), SUM_BITS - 2) if binary else 0
    if not binary or largest * 2**after < LEAST_GAIN:
        ratios = (2 ** (SUM_BITS - 1) - 1) / largest, 2**61 / (largest * sums)
        after = min(*map(_bits_within, ratios), 61)
    if max(np.max(np.abs(shift)), largest) >= 2 ** (SUM_BITS - 1):
        return _Made(node, read.interval, 1.0, int(max(np.max(np.abs(shift)), largest)), SUM_BITS, place)
    whole_gain = np.rint(np.ldexp(gain, after)).astype(np.int32)
    scale = Whole(whole_gain, shift.astype(np.int32), before, after, False)
    if _bounds.product(scale, read.interval) >= 2 ** (SUM_BITS - 1):
        scale = dataclasses.replace(scale, is_wide=True)
    found, most = _bounds.scaled(scale, read.interval), _bounds.widest(scale, read.interval)
    made = Current(node.source, node.name, scale, node.shape, bits)
    return _Made(made, found, math.ldexp(1.0, -bits), most, SUM_BITS, place)


def _bits_within(ratio: float) -> int:
    """How many times a number may be doubled within a ratio; none where there is no room."""
    return max(0, math.frexp(ratio)[1] - 1)


def _readout(attempt: _Attempt, node: Any, place: int) -> _Made:
    """Currents that are summed over time; where one factor serves them all, sums themselves."""
    gain, shift = node.scale.gain, node.scale.shift
    read = attempt.made[node.source]
    # A bias may be rounded to units of sums where these are fine, as those of many bits are.
    is_fine = read.interval.most >= 2**20 or not np.any(shift)
    serves = np.all(gain == gain[0, 0]) and gain[0, 0] != 0
    if not serves or not is_fine or over_currents(attempt.graph.nodes, node.source):
        made = _current(attempt, node, place)
    else:
        unit, coarser = abs(float(gain[0, 0])) * read.unit, attempt.coarser(node.source)
        ones = np.full((1, node.shape[-1]), np.sign(gain[0, 0]), np.int32)
        levels = np.broadcast_to(np.rint(shift / unit), (len(shift), node.shape[-1]))
        most = int(np.max(np.abs(levels)))
        scale = Whole(ones, np.where(np.abs(levels) < 2**31, levels, 0).astype(np.int32), 0, 0, False)
        readout = Current(node.source, node.name, scale, node.shape)
        made = _Made(readout, read.interval, unit, most, SUM_BITS, coarser)
    if made.most >= 2 ** (SUM_BITS - 1):
        return made
    total, most = _bounds.summed(made.node.scale, read.interval, attempt.graph.num_steps)  # type: ignore[union-attr]
    return made._replace(interval=total, most=max(made.most, most))


def _add(attempt: _Attempt, node: Add, place: int) -> _Made:
    one, other = attempt.made[node.source], attempt.made[node.other]
    found = _bounds.added(one.interval, other.interval)
    return _Made(node, found, one.unit, found.most, SUM_BITS, place)


def _neurons(attempt: _Attempt, node: Neurons, place: int) -> _Made:
    read, width = attempt.made[node.source], attempt.numbers.membrane_bits
    bits = attempt.precision[node.source]
    threshold, decay = int(np.rint(np.ldexp(node.threshold, bits))), int(np.rint(np.ldexp(node.decay, width - 1)))
    if threshold < 1:
        _validate.no_threshold(node.name, width)
    made = dataclasses.replace(node, threshold=threshold, decay=decay, decay_bits=width - 1)
    charged = _bounds.charged(made, read.interval, attempt.graph.num_steps)
    found = _bounds.constant(0, 1, node.shape[-1])
    return _Made(made, found, 1.0, max(charged.most, threshold), width, attempt.coarser(node.source))


RULES: dict[Any, Callable[[_Attempt, Any, int], _Made]] = {
    Input: _input,
    SumPool: _sum_pool,
    AnyPool: _any_pool,
    Flatten: _flatten,
    Synapse: _synapse,
    Current: _current,
    Add: _add,
    Neurons: _neurons,
}
"""By kind of node."""
