"""An integer network in the Neuromorphic Intermediate Representation, as a graph of real numbers.

Source: Pedersen et al., "Neuromorphic intermediate representation", 2024, https://doi.org/10.1038/s41467-024-52259-9.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bsojax import _validate
from bsojax.deploy._graph import Add, AnyPool, Current, Flatten, Graph, Input, Neurons, Shape, SumPool, Synapse
from bsojax.deploy._graph import sources as sources_of
from bsojax.deploy._layers import image
from bsojax.deploy._network import IntegerNetwork
from bsojax.deploy._nir_writer import Map, Writer, by_channel, nir
from bsojax.deploy._square import ungrouped


class Folded(NamedTuple):
    """A current that is merged into the weights of the synapse that produces it.

    Attributes:
      current: its place.
      area: the area of the windows between them, over which a bias is summed.
    """

    current: int
    area: int


class Writing(NamedTuple):
    """A network as it is being written.

    Attributes:
      network: the network.
      writer: the NIR graph.
      units: for each current, the value in NIR of one unit of it.
      folded: by the place of the synapse.
      maps: the maps of the network's nodes so far.
    """

    network: IntegerNetwork
    writer: Writer
    units: list[float]
    folded: dict[int, Folded]
    maps: list[Map]


def to_nir(network: IntegerNetwork, dt: float) -> Any:
    """Returns a network as a nir.NIRGraph; see IntegerNetwork.to_nir."""
    return written(network, dt)[0]


def to_nir_data(network: IntegerNetwork, x: Any, dt: float) -> Any:
    """Returns inputs and spikes as nir.NIRGraphData; see IntegerNetwork.to_nir_data."""
    spikes, (_, maps) = network.run(x)[1], written(network, dt)
    frames = np.asarray(x) if network.is_sequence else np.stack([x] * network.num_steps)
    found = {maps[0].names[0]: ("input", (frames / network.input_scale).astype(np.float32), image(network.input_shape))}
    for node, told in zip(network.graph.nodes, maps, strict=True):
        if isinstance(node, Neurons):
            found[told.names[0]] = ("spikes", spikes[node.name], told.shape)
    return nir.NIRGraphData(
        {name: nir.NIRNodeData({what: _gridded(values, shape, dt)}) for name, (what, values, shape) in found.items()}
    )


def _gridded(values: np.ndarray, shape: Shape, dt: float) -> nir.TimeGriddedData:
    """Values of shape ``(num_steps, batch, ...)`` by example, time step and neuron, channels first."""
    steps, batch = values.shape[:2]
    images = values.reshape(steps, batch, *shape).transpose(1, 0, 4, 2, 3)
    return nir.TimeGriddedData(np.ascontiguousarray(images.reshape(batch, steps, -1)), dt)


def written(network: IntegerNetwork, dt: float) -> tuple[nir.NIRGraph, list[Map]]:
    """Returns a network in NIR, and where to find the map of each of its nodes there."""
    writer = Writer(_validate.positive_number("dt", dt), len(network.input_shape) <= 1)
    units, folded = _units(network.graph, network.logit_scale), dict(_folded(network.graph))
    writing = Writing(network, writer, units, folded, [])
    for place, node in enumerate(network.graph.nodes):
        writing.maps.append(RULES[type(node)](writing, node, place))
    last = writing.maps[-1]
    writer.append("output", nir.Output(output_type=np.array(writer.form(last.shape))), last)
    metadata = {
        "dt": writer.dt,
        "num_steps": network.num_steps,
        "input": f"what the model reads: whole numbers over {network.input_scale:g}, channels first, "
        + ("a frame for each time step" if network.is_sequence else "the same frame at each time step"),
        "output": "summed over the time steps, the logits of the model",
    }
    return nir.NIRGraph(nodes=writer.nodes, edges=writer.edges, metadata=metadata), writing.maps


def _units(graph: Graph, logit_scale: float) -> list[float]:
    """Units in which membranes are unchanged: a NIR neuron takes in its leak's share of a current."""
    leaks: dict[int, float] = {}
    for node in graph.nodes:
        if isinstance(node, Neurons):
            _share(graph, node.source, _leak(node) or 1.0, leaks)
    units = [
        math.ldexp(1 / leaks.get(place, 1.0), -node.fraction_bits) if isinstance(node, Current) else 1.0
        for place, node in enumerate(graph.nodes)
    ]
    return [*units[:-1], logit_scale]


def _share(graph: Graph, place: int, leak: float, leaks: dict[int, float]) -> None:
    """Records a leak for a current and everything added to it, which need one unit; the first one recorded counts."""
    if place in leaks:
        return
    leaks[place] = leak
    for added, node in enumerate(graph.nodes):
        if isinstance(node, Add) and place in (added, node.source, node.other):
            for near in (added, node.source, node.other):
                _share(graph, near, leak, leaks)


def _leak(node: Neurons) -> float:
    return 1 - math.ldexp(node.decay, -node.decay_bits)


def _folded(graph: Graph) -> Iterator[tuple[int, Folded]]:
    """Synapses that only one current reads, possibly through windows."""
    readers = [read for node in graph.nodes for read in sources_of(node)]
    for place, node in enumerate(graph.nodes):
        if not isinstance(node, Current):
            continue
        source, area = node.source, 1
        while isinstance(read := graph.nodes[source], SumPool | Flatten) and readers.count(source) == 1:
            source, area = read.source, area * (math.prod(read.window) if isinstance(read, SumPool) else 1)
        channels = read.shape[-1]
        same = all(by_channel(given[0], channels) is not None for given in (node.scale.gain, node.scale.shift))
        if isinstance(read, Synapse) and readers.count(source) == 1 and same:
            yield source, Folded(place, area)


def _real(writing: Writing, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The gain and shift that turn sums in whole numbers into a current in NIR."""
    node: Any = writing.network.graph.nodes[place]
    if any(np.any(given != given[0]) for given in (node.scale.gain, node.scale.shift)):
        why = (
            "norms give it other statistics at each time step, and NIR has no time steps; train with norms that share "
            "them (num_steps=None), or put the weights into such a model and call refresh_statistics"
        )
        _validate.not_in_nir(node.name, why)
    unit = writing.units[place]
    bits = node.scale.before + node.scale.after
    return np.ldexp(node.scale.gain[0] * unit, -bits), node.scale.shift[0] * unit


def _input(writing: Writing, node: Input, place: int) -> Map:
    names = writing.writer.append("input", nir.Input(input_type=np.array(writing.writer.form(node.shape))))
    return Map(names, 1 / writing.network.input_scale, node.shape)


def _synapse(writing: Writing, node: Synapse, place: int) -> Map:
    read, folded = writing.maps[node.source], writing.folded.get(place)
    kernel = np.where(node.kernel, 1.0, -1.0) if node.is_binary else node.kernel.astype(np.float64)
    kernel = ungrouped(kernel, node.groups)
    if read.shape != writing.network.graph.nodes[node.source].shape:  # a vector of pixels
        kernel = kernel.reshape(*read.shape, -1)
    if folded is None:
        unit = math.ldexp(read.unit, -node.weight_bits)
        gain, shift = np.full(node.shape[-1], unit), np.zeros(node.shape[-1])
    else:
        unit = writing.units[folded.current]
        gain, shift = (by_channel(given, node.shape[-1]) for given in _real(writing, folded.current))  # type: ignore[assignment]
        shift = shift / folded.area
    names = writing.writer.weigh(node.name, read, kernel * (gain / read.unit), shift, node.shape, node.window)
    return Map(names, unit, node.shape)


def _current(writing: Writing, node: Current[Any], place: int) -> Map:
    read, unit = writing.maps[node.source], writing.units[place]
    if any(folded.current == place for folded in writing.folded.values()):
        return read
    gain, shift = _real(writing, place)
    names, shape = writing.writer.scale(node.name, read, gain / read.unit, shift)
    return Map(names, unit, shape)


def _add(writing: Writing, node: Add, place: int) -> Map:
    one, other = writing.maps[node.source], writing.maps[node.other]
    is_flat = one.shape != other.shape  # one is a vector, the other the pixels of an image
    if is_flat or set(one.names) & set(other.names):
        one, other = (_copied(writing, read, node, is_flat) for read in (one, other))
    return Map(one.names + other.names, one.unit, one.shape)


def _copied(writing: Writing, read: Map, node: Add, is_flat: bool) -> Map:
    """A map as a node of its own."""
    ones, zeros = np.ones(math.prod(read.shape)), np.zeros(math.prod(read.shape))
    names, shape = writing.writer.scale(node.name, read, ones, zeros, is_flat)
    return Map(names, read.unit, shape)


def _sum_pool(writing: Writing, node: SumPool, place: int) -> Map:
    read = writing.maps[node.source]
    if node.repeats_edge and any(side % window for side, window in zip(read.shape[:2], node.window, strict=True)):
        why = "it repeats the last row or column of an odd side; give it images of even sides"
        _validate.not_in_nir(node.name, why)
    return writing.writer.pool(node.name, read, node.window, node.shape) if math.prod(node.window) > 1 else read


def _any_pool(writing: Writing, node: AnyPool, place: int) -> Map:
    read = writing.maps[node.source]
    if math.prod(node.window) == 1:
        return read
    # Neurons without leak that fire on a single spike of the window and keep nothing.
    counts = writing.writer.pool(f"sum of {node.name}", read, node.window, node.shape)
    return writing.writer.fire(node.name, counts, 0.0, 0.5, True)


def _flatten(writing: Writing, node: Flatten, place: int) -> Map:
    return writing.maps[node.source]


def _neurons(writing: Writing, node: Neurons, place: int) -> Map:
    read, leak = writing.maps[node.source], _leak(node)
    # NIR's membranes are the library's in the units of their inputs.
    threshold = node.threshold * read.unit * (leak or 1.0)
    return writing.writer.fire(node.name, read, leak, threshold, node.hard)


RULES: dict[Any, Callable[[Writing, Any, int], Map]] = {
    Input: _input,
    Synapse: _synapse,
    Current: _current,
    Add: _add,
    SumPool: _sum_pool,
    AnyPool: _any_pool,
    Flatten: _flatten,
    Neurons: _neurons,
}
"""By kind of node."""
