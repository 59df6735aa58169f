"""From a graph to stages: what is computed in one pass over a map, and where its results are placed."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from bsojax.deploy._graph import (
    Add,
    Current,
    Graph,
    Neurons,
    Node,
    SumPool,
    Synapse,
    holds_wide_sums,
    sources,
)


@dataclasses.dataclass(frozen=True)
class Pass:
    """Nodes that are computed together, pixel by pixel, through all time steps of a block.

    Attributes:
      places: the places of the nodes, each of which except the first reads the one before.
      keeps: the places of those whose map other passes read too.
      counts: whether the spikes at its end are only counted over time.
    """

    places: tuple[int, ...]
    keeps: tuple[int, ...]
    counts: bool = False


@dataclasses.dataclass(frozen=True)
class CountedReadout:
    """A readout of spikes that were counted over all time steps of a block.

    Attributes:
      places: the places of its nodes; the last one is the network's.
      neurons: the place of the neurons.
    """

    places: tuple[int, ...]
    neurons: int


def plan(graph: Graph) -> tuple[Pass | CountedReadout, ...]:
    """Returns what is computed, in order; pools, flattened maps and the input are passes of one node."""
    readers = readers_of(graph.nodes)
    done: set[int] = set()
    passes: list[Pass | CountedReadout] = []
    for place, node in enumerate(graph.nodes):
        if place in done:
            continue
        if isinstance(node, Synapse) and holds_wide_sums(graph.nodes, place):
            # Such sums are wide: they are not held, but computed for each current that reads them.
            done.add(place)
            passes += [_extended(graph.nodes, readers, done, (place, reader)) for reader in readers[place]]
        elif isinstance(node, Synapse | Current | Add | Neurons):
            found = _extended(graph.nodes, readers, done, (place,))
            passes.append(found)
            if found.counts:
                readout = counted_by(graph.nodes, readers, found.places[-1]) or ()
                done.update(readout)
                passes.append(CountedReadout(readout, found.places[-1]))
        else:
            done.add(place)
            passes.append(Pass((place,), (place,)))
    return tuple(passes)


def readers_of(nodes: Sequence[Node]) -> list[list[int]]:
    """For each node the places of the nodes that read it."""
    readers: list[list[int]] = [[] for _ in nodes]
    for place, node in enumerate(nodes):
        for source in sources(node):
            readers[source].append(place)
    return readers


def _extended(nodes: Sequence[Node], readers: list[list[int]], done: set[int], places: tuple[int, ...]) -> Pass:
    """Returns the longest pass that begins with the given nodes."""
    done.update(places)
    while (following := _next(nodes, readers, done, places[-1])) is not None:
        places = (*places, following)
        done.add(following)
    last = places[-1]
    keeps = tuple(place for place in places[:-1] if len(readers[place]) > 1 and not holds_wide_sums(nodes, place))
    counts = isinstance(nodes[last], Neurons) and counted_by(nodes, readers, last) is not None
    return Pass(places, keeps if counts or not readers[last] else (*keeps, last), counts)


def _next(nodes: Sequence[Node], readers: list[list[int]], done: set[int], last: int) -> int | None:
    """The node that can be computed from a pass's last node while its result is at hand."""
    tail = nodes[last]
    for kind in (Add, Neurons) if isinstance(tail, Current | Add) else (Current,) if isinstance(tail, Synapse) else ():
        for reader in readers[last]:
            node = nodes[reader]
            if isinstance(node, kind) and reader not in done and set(sources(node)) <= done:
                return reader
    return None


def counted_by(nodes: Sequence[Node], readers: list[list[int]], place: int) -> tuple[int, ...] | None:
    """For neurons read only by a readout that is linear over time, the readout's nodes; otherwise None."""
    found, shape = [place], nodes[place].shape
    while len(readers[found[-1]]) == 1:
        found += readers[found[-1]]
    match [nodes[place] for place in found[1:]]:
        case [Synapse() as synapse, Current() as readout]:
            covers = synapse.kernel.shape[:2] == shape[:2] and synapse.window.before == (0, 0)
        case [SumPool() as pool, Synapse() as synapse, Current() as readout]:
            covers = pool.window == shape[:2] and synapse.kernel.shape[:2] == (1, 1)
        case _:
            return None
    is_last = found[-1] == len(nodes) - 1 and synapse.shape[:2] == (1, 1) and synapse.groups == 1
    plain = np.all(np.abs(readout.scale.gain) == 1) and readout.scale.before == readout.scale.after == 0
    return tuple(found[1:]) if covers and is_last and plain else None
