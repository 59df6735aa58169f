"""Whether the nodes of a graph of integers fit each other: sources, shapes, kernels, windows, tables."""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

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
    first_added,
    holds_spikes,
    holds_wide_sums,
    sources,
)

ELEMENTS = 2**28
"""The most elements of a map over all time steps: C counts them, and their channels' bits, with an int."""

NODES = 2**11
"""At most."""

BOUNDS = 2**25
"""The most channels of all nodes over all time steps: the number of bounds to prove."""


def check_structure(graph: Graph) -> None:
    """Refuses a graph whose nodes do not fit each other; its numbers may come from any source.

    Raises:
      ValueError: what does not fit, with the name of the node; without a full stop.
    """
    nodes = graph.nodes
    if len(nodes) > NODES or graph.num_steps < 1 or graph.num_steps * sum(node.shape[2] for node in nodes) > BOUNDS:
        raise ValueError(f"{len(nodes):,} nodes and {graph.num_steps:,} time steps are not what a network can have")
    if not nodes or not isinstance(nodes[0], Input) or not isinstance(nodes[-1], Current):
        raise ValueError("its nodes must begin with an Input and end with a Current")
    read: set[int] = set()
    for place, node in enumerate(nodes):
        if not all(0 <= source < place for source in sources(node)):
            _refuse(node, "it reads no node before it")
        if min(node.shape) < 1 or math.prod(node.shape) * graph.num_steps > ELEMENTS:
            _refuse(node, f"a map cannot have the shape {node.shape}")
        if not isinstance(node, Current) and any(holds_wide_sums(nodes, source) for source in sources(node)):
            _refuse(node, "sums over currents are read only by currents")
        _RULES[type(node)](graph, node, place)
        read.update(sources(node))
    if unread := set(range(len(nodes) - 1)) - read:
        _refuse(nodes[min(unread)], "nothing reads it")


def _refuse(node: Node, why: str) -> NoReturn:
    raise ValueError(f"{node.name!a}: {why}")


def _input(graph: Graph, node: Input, place: int) -> None:
    if place:
        _refuse(node, "there is one Input, the first node")


def _pool(graph: Graph, node: SumPool | AnyPool, place: int) -> None:
    given = graph.nodes[node.source].shape
    if min(node.window) < 1:
        _refuse(node, f"{node.window} is not a window")
    up = isinstance(node, SumPool) and node.repeats_edge
    sides = (-(-side // size) if up else side // size for side, size in zip(given, node.window, strict=False))
    _same(node, (*sides, given[2]))
    if isinstance(node, AnyPool) and not holds_spikes(graph.nodes, node.source):
        _refuse(node, "it reads no spikes")


def _flatten(graph: Graph, node: Flatten, place: int) -> None:
    _same(node, (1, 1, math.prod(graph.nodes[node.source].shape)))


def _synapse(graph: Graph, node: Synapse, place: int) -> None:
    window, kernel, channels = node.window, node.kernel, graph.nodes[node.source].shape[2]
    if kernel.ndim != 4 or 0 in kernel.shape or kernel.dtype not in (np.bool_, np.int32):
        _refuse(node, f"its kernel cannot be {kernel.dtype} of shape {kernel.shape}")
    if node.groups < 1 or kernel.shape[2] * node.groups != channels or kernel.shape[3] % node.groups:
        _refuse(node, f"its kernel of shape {kernel.shape} does not fit {channels} channels in {node.groups} groups")
    _same(node, (*node.shape[:2], kernel.shape[3]))
    if min(*window.strides, *window.dilation) < 1:
        _refuse(node, "strides and dilations are at least 1")
    for side, size, step, far, front in zip(
        node.shape, kernel.shape, window.strides, window.dilation, window.before, strict=False
    ):
        if (side - 1) * step + (size - 1) * far + abs(front) >= ELEMENTS:
            _refuse(node, "its window moves too far")


def _current(graph: Graph, node: Current[Any], place: int) -> None:
    _same(node, graph.nodes[node.source].shape)
    for table in (node.scale.gain, node.scale.shift):
        if table.ndim != 2 or table.shape[0] not in (1, graph.num_steps) or table.shape[1] != node.shape[2]:
            _refuse(node, f"a table of shape {table.shape} does not fit {node.shape[2]} channels")
        if table.dtype != np.int32:
            _refuse(node, f"a table cannot be {table.dtype}")


def _add(graph: Graph, node: Add, place: int) -> None:
    for source in sources(node):
        _same(node, graph.nodes[source].shape)
    if len({_fraction_bits(graph, source) for source in sources(node)}) > 1:
        _refuse(node, "it adds currents of unequal fraction bits")


def _neurons(graph: Graph, node: Neurons, place: int) -> None:
    _same(node, graph.nodes[node.source].shape)
    _fraction_bits(graph, node.source)
    if min(node.form, default=1) < 1 or math.prod(node.form) != math.prod(node.shape):
        _refuse(node, f"{node.form} is not a form of {node.shape}")


def _fraction_bits(graph: Graph, place: int) -> int:
    node = first_added(graph.nodes, place)
    if not isinstance(node, Current):
        _refuse(node, "what is added to another current, or charges neurons, is not a current")
    return node.fraction_bits


def _same(node: Node, shape: tuple[int, ...]) -> None:
    if node.shape != shape:
        _refuse(node, f"it has the shape {node.shape}, and what it reads makes {shape}")


_RULES: dict[type, Callable[[Graph, Any, int], None]] = {
    Input: _input,
    SumPool: _pool,
    AnyPool: _pool,
    Flatten: _flatten,
    Synapse: _synapse,
    Current: _current,
    Add: _add,
    Neurons: _neurons,
}
