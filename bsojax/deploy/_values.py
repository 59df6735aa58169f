"""Builds a graph: values stay a map times a gain plus a shift until something reads them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bsojax import _validate
from bsojax.deploy._graph import (
    Add,
    Current,
    Flatten,
    Graph,
    Input,
    Node,
    Real,
    Shape,
    holds_real_sums,
    holds_spikes,
    holds_wide_sums,
    sources,
)
from bsojax.deploy._marks import Call


class Value(NamedTuple):
    """What travels between layers, ``gain * map + shift``.

    Attributes:
      place: the place of the map among the nodes.
      gain, shift: float64 of shape ``(1 or num_steps, 1 or channels)``.
    """

    place: int
    gain: np.ndarray = np.ones((1, 1))
    shift: np.ndarray = np.zeros((1, 1))

    @property
    def is_map(self) -> bool:
        """Whether it is the map itself."""
        return bool(np.all(self.gain == 1) and np.all(self.shift == 0))

    @property
    def is_uniform(self) -> bool:
        """Whether it is the map times one number per time step."""
        return bool(self.gain.shape[1] == 1 or np.all(self.gain == self.gain[:, :1])) and bool(np.all(self.shift == 0))


class Builder:
    """A growing graph.

    Attributes:
      nodes: the nodes so far.
      num_steps: the number of time steps.
    """

    def __init__(
        self,
        shape: Shape,
        num_steps: int,
        rules: Mapping[Any, Callable[["Builder", Call, Value], Value]],
    ) -> None:
        self.nodes: list[Node] = [Input(shape)]
        self.num_steps = num_steps
        self._rules = rules

    def graph(self, logits: Value, is_sequence: bool) -> Graph:
        """Returns the graph whose last node holds the logits."""
        self.append(Current(logits.place, "readout", Real(logits.gain, logits.shift), self.shape(logits)))
        return Graph(reached(self.nodes), self.num_steps, is_sequence)

    def input(self) -> Value:
        """The frame."""
        return Value(0)

    def append(self, node: Node) -> Value:
        """Adds a node; returns its map."""
        self.nodes.append(node)
        return Value(len(self.nodes) - 1)

    def node(self, value: Value) -> Node:
        """The node whose map a value is based on."""
        return self.nodes[value.place]

    def name(self, value: Value) -> str:
        """The layer whose map a value is based on."""
        return self.node(value).name

    def shape(self, value: Value) -> Shape:
        """The shape of a value's map."""
        return self.node(value).shape

    def holds_spikes(self, value: Value) -> bool:
        """Whether a value consists of zeros and ones from neurons."""
        return value.is_map and holds_spikes(self.nodes, value.place)

    def holds_many_bits(self, value: Value) -> bool:
        """Whether a value consists of sums that have as many bits as sums may have, or more."""
        return holds_real_sums(self.nodes, value.place) or self.holds_wide_sums(value)

    def holds_wide_sums(self, value: Value) -> bool:
        """Whether a value consists of sums over currents."""
        return holds_wide_sums(self.nodes, value.place)

    def layer(self, call: Call, read: Value, variables: Sequence[Any]) -> Value:
        """Returns a layer's result for its input, with variables in the order of its leaves."""
        call = dataclasses.replace(call, variables=dict(zip(call.leaves, variables, strict=True)))
        return self._rules[call.kind](self, call, read)

    def leaf(self, call: Call, name: str) -> np.ndarray:
        """Returns a variable of a layer."""
        held = call.variables[name]
        if not hasattr(held, "read"):
            _validate.not_deployable(f"'{call.name}'", f"its {name} depends on the input")
        return np.asarray(held.read())

    def affine(self, value: Value, gain: Any, shift: Any) -> Value:
        """Returns ``gain * value + shift``, with one number, one per channel, or one per time step and channel."""
        gain, shift = (np.atleast_2d(np.asarray(given, np.float64)) for given in (gain, shift))
        made = Value(value.place, value.gain * gain, value.shift * gain + shift)
        if not np.all(np.isfinite(made.gain)) or not np.all(np.isfinite(made.shift)):
            _validate.not_deployable(f"what follows '{self.name(value)}'", "it is not finite, as after a division by 0")
        return made

    def flatten(self, value: Value, name: str) -> Value:
        """Returns a value as a vector."""
        high, wide, channels = shape = self.shape(value)
        if high == wide == 1:
            return value
        value = self.narrow(value)
        place = self.append(Flatten(value.place, name, (1, 1, math.prod(shape)))).place
        gain, shift = (_repeated(given, high * wide, channels) for given in (value.gain, value.shift))
        return Value(place, gain, shift)

    def current(self, value: Value, name: str) -> Value:
        """Returns a value as the map of a current."""
        if isinstance(self.node(value), Current | Add) and value.is_map:
            return value
        return self.append(Current(value.place, name, Real(value.gain, value.shift), self.shape(value)))

    def narrow(self, value: Value) -> Value:
        """Returns a value whose map can be held: sums over currents have too many bits and become the current."""
        return self.current(value, f"{self.name(value)} as a current") if self.holds_wide_sums(value) else value

    def add(self, one: Value, other: Value) -> Value:
        """Returns the sum of two values as a current."""
        if one.place == other.place:
            return Value(one.place, one.gain + other.gain, one.shift + other.shift)
        first, second = (self.current(value, self.name(value)) for value in (one, other))
        name = f"{self.name(first)} + {self.name(second)}"
        return self.append(Add(first.place, second.place, name, self.shape(first)))


def _repeated(given: np.ndarray, pixels: int, channels: int) -> np.ndarray:
    """Numbers per channel as numbers per channel and pixel."""
    return given if given.shape[1] == 1 else np.tile(given.reshape(-1, channels), (1, pixels))


def reached(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The input, and the nodes from which the last one is computed."""
    wanted = {0, len(nodes) - 1}
    for place in reversed(range(len(nodes))):
        wanted |= set(sources(nodes[place])) if place in wanted else set()
    places = {old: new for new, old in enumerate(sorted(wanted))}
    return tuple(_moved(nodes[old], places) for old in sorted(wanted))


def _moved(node: Node, places: Mapping[int, int]) -> Node:
    if isinstance(node, Input):
        return node
    moved = dataclasses.replace(node, source=places[node.source])
    return dataclasses.replace(moved, other=places[moved.other]) if isinstance(moved, Add) else moved
