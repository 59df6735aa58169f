"""Makes the numbers of a graph whole, with as many bits as its bounds prove safe."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsojax import _validate
from bsojax.deploy import _bounds
from bsojax.deploy._bounds import SUM_BITS
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
from bsojax.deploy._proof import Proving, TooWideError

MOST_FRACTION_BITS = 24

LEAST_GAIN = 2**14
"""The smallest gain of signs whose products fit into 32 bits: up to half a unit of it is lost, times the sum."""


class Numbers(NamedTuple):
    """The numbers that a network takes, and those with which it computes.

    Attributes:
      input_scale: inputs are whole numbers, the model's inputs times this.
      input_min, input_max: the smallest and the largest of them.
      membrane_bits: width of membranes, including the sign.
      weight_bits: the most bits of a real weight, including the sign.
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
      logit_scale: the value of a logit of one, in real numbers.
    """

    graph: Graph
    logit_scale: float


class _Made(NamedTuple):
    """A node in whole numbers.

    Attributes:
      node: the node.
      unit: the value of one unit of its map, in real numbers.
    """

    node: Node
    unit: float


class _Attempt:
    """An attempt to make a graph whole at a given precision, node by node.

    Attributes:
      graph: the graph in real numbers.
      numbers: what it takes and computes with.
      precision: the fraction bits of each node's weights or current.
      proving: the bounds of the nodes so far.
      units: the units of their maps.
    """

    def __init__(self, graph: Graph, numbers: Numbers, precision: Sequence[int]) -> None:
        self.graph, self.numbers, self.precision = graph, numbers, precision
        self.proving = Proving(graph, numbers.input_min, numbers.input_max, numbers.membrane_bits)
        self.units: list[float] = []

    @property
    def is_readout(self) -> bool:
        """Whether the next node is the last."""
        return len(self.units) == len(self.graph.nodes) - 1

    def coarser(self) -> int:
        """The node whose precision must be lowered where the numbers of the next one do not fit."""
        place = len(self.units)
        node: Any = self.graph.nodes[place]
        if isinstance(node, Neurons) or (self.is_readout and _tells_sums(self, node)):
            place = node.source
        while isinstance(node := self.graph.nodes[place], SumPool | AnyPool | Flatten | Synapse):
            if isinstance(node, Synapse) and not node.is_binary:
                break
            place = node.source
        return place


def whole(graph: Graph, numbers: Numbers) -> WholeGraph:
    """Returns a graph in whole numbers.

    Weights and currents start with more bits than fit; where the bounds of a number exceed its width, the precision of
    its sources is lowered until they do not.

    Raises:
      ValueError: a layer's numbers do not fit at any precision.
    """
    groups = _groups(graph.nodes)
    precision = [_first_precision(node, numbers) for node in graph.nodes]
    while True:
        attempt = _Attempt(graph, numbers, [precision[group] for group in groups])
        try:
            for node in graph.nodes:
                rule = _readout if attempt.is_readout else RULES.get(type(node), _as_it_is)
                made = rule(attempt, node)
                attempt.proving.add(made.node)
                attempt.units.append(made.unit)
        except TooWideError as error:
            coarser = groups[attempt.coarser()]
            precision[coarser] -= max(1, error.most.bit_length() + 1 - error.bits)
            if precision[coarser] < -MOST_FRACTION_BITS:
                _validate.too_wide(error.name, error.most, error.bits)
        else:
            nodes = tuple(attempt.proving.nodes)
            return WholeGraph(dataclasses.replace(graph, nodes=nodes), attempt.units[-1])


def _first_precision(node: Node, numbers: Numbers) -> int:
    """The most fraction bits of a weight or a current."""
    if isinstance(node, Synapse) and not node.is_binary:
        largest, width = float(np.max(np.abs(node.kernel))) or 1.0, numbers.weight_bits - 1
        bits = width - math.frexp(largest)[1]
        return bits - int(round(math.ldexp(largest, bits)) >= 2**width)
    return MOST_FRACTION_BITS


def _groups(nodes: Sequence[Node]) -> list[int]:
    """For each node the first of those whose currents are added together, which share their fraction bits."""
    groups = list(range(len(nodes)))
    for place, node in enumerate(nodes):
        if isinstance(node, Add):
            joined = {groups[node.source], groups[node.other], place}
            groups = [min(joined) if group in joined else group for group in groups]
    return groups


def _input(attempt: _Attempt, node: Input) -> _Made:
    return _Made(node, 1 / attempt.numbers.input_scale)


def _as_it_is(attempt: _Attempt, node: Any) -> _Made:
    """A node without numbers of its own."""
    return _Made(node, attempt.units[node.source])


def _synapse(attempt: _Attempt, node: Synapse) -> _Made:
    if node.is_binary:
        return _as_it_is(attempt, node)
    bits = attempt.precision[len(attempt.units)]
    weights = np.rint(np.ldexp(node.kernel, bits)).astype(np.int32)
    made = dataclasses.replace(node, kernel=weights, weight_bits=bits)
    return _Made(made, math.ldexp(attempt.units[node.source], -bits))


def _current(attempt: _Attempt, node: Current[Real]) -> _Made:
    read, interval = attempt.proving.nodes[node.source], attempt.proving.intervals[node.source]
    bits, channels = attempt.precision[len(attempt.units)], node.shape[-1]
    before = _bounds.bits_to_drop(interval.most)
    gain, shift = (np.broadcast_to(given, (len(given), channels)) for given in (node.scale.gain, node.scale.shift))
    gain = gain * math.ldexp(attempt.units[node.source], before + bits)
    shift = np.rint(np.ldexp(shift, bits))
    _fits(node, gain)
    _fits(node, shift)
    largest, sums = float(np.max(np.abs(gain))) or 1.0, max(1, interval.most >> before)
    # Signs are many, and their products should fit into 32 bits; a real weight's sum is exact to its last bit.
    binary = isinstance(read, Synapse) and read.is_binary
    after = min(_bits_within(2 ** (SUM_BITS - 2) / (largest * sums)), SUM_BITS - 2) if binary else 0
    if not binary or largest * 2**after < LEAST_GAIN:
        ratios = (2 ** (SUM_BITS - 1) - 1) / largest, 2**61 / (largest * sums)
        after = min(*map(_bits_within, ratios), 61)
    scale = Whole(np.rint(np.ldexp(gain, after)).astype(np.int32), shift.astype(np.int32), before, after, False)
    if _bounds.product(scale, interval) >= 2 ** (SUM_BITS - 1):
        scale = dataclasses.replace(scale, is_wide=True)
    return _Made(Current(node.source, node.name, scale, node.shape, bits), math.ldexp(1.0, -bits))


def _bits_within(ratio: float) -> int:
    """How many times a number can be doubled within a ratio; 0 where there is no room."""
    return max(0, math.frexp(ratio)[1] - 1)


def _fits(node: Node, values: np.ndarray) -> None:
    """Refuses numbers that do not fit into int32."""
    most = float(np.max(np.abs(values)))
    if most >= 2 ** (SUM_BITS - 1):
        raise TooWideError(node.name, int(most), SUM_BITS)


def _readout(attempt: _Attempt, node: Any) -> _Made:
    """Currents that are summed over time, or, where one factor serves them all, the sums themselves."""
    if not _tells_sums(attempt, node):
        return _current(attempt, node)
    gain = float(node.scale.gain[0, 0])
    unit = abs(gain) * attempt.units[node.source]
    ones = np.full((1, node.shape[-1]), np.sign(gain), np.int32)
    levels = np.broadcast_to(np.rint(node.scale.shift / unit), (len(node.scale.shift), node.shape[-1]))
    _fits(node, levels)
    return _Made(Current(node.source, node.name, Whole(ones, levels.astype(np.int32), 0, 0, False), node.shape), unit)


def _tells_sums(attempt: _Attempt, node: Current[Real]) -> bool:
    """Whether the sums that a readout reads are logits, up to one factor and a bias."""
    # A bias may be rounded to units of sums where these units are small, as for sums of many bits.
    is_fine = attempt.proving.intervals[node.source].most >= 2**20 or not np.any(node.scale.shift)
    factor = node.scale.gain[0, 0]
    serves = bool(np.all(node.scale.gain == factor)) and factor != 0
    return serves and is_fine and not over_currents(attempt.graph.nodes, node.source)


def _neurons(attempt: _Attempt, node: Neurons) -> _Made:
    width, bits = attempt.numbers.membrane_bits, attempt.precision[node.source]
    threshold, decay = int(np.rint(np.ldexp(node.threshold, bits))), int(np.rint(np.ldexp(node.decay, width - 1)))
    if threshold < 1:
        _validate.no_threshold(node.name, width)
    return _Made(dataclasses.replace(node, threshold=threshold, decay=decay, decay_bits=width - 1), 1.0)


RULES: dict[Any, Callable[[_Attempt, Any], _Made]] = {
    Input: _input,
    Synapse: _synapse,
    Current: _current,
    Neurons: _neurons,
}
"""By kind of node, for those that have numbers of their own."""
