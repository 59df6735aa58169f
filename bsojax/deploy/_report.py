"""What an integer network needs on a device, layer by layer, and how close its numbers come to their widths."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from bsojax.deploy._agreement import Agreement
from bsojax.deploy._graph import Current, Flatten, Graph, Neurons, Shape, SumPool, Synapse, first_added
from bsojax.deploy._proof import Proof
from bsojax.deploy.c import Source


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What a layer needs: one with weights, or one of neurons.

    Attributes:
      name: the layer's name.
      shape: the shape of its map, ``(rows, columns, channels)``.
      weights: the number of its weights.
      is_binary: whether they are signs.
      weight_bytes: the bytes of its weights, at one bit per sign and 32 bits per real weight.
      table_bytes: the bytes of the gains and shifts that turn its sums into currents.
      fraction_bits: the fraction bits of its neurons' membranes; None if it has no neurons.
      membrane_share: the largest membrane that any input can cause, as a fraction of what its width holds; None if it
        has no neurons.
    """

    name: str
    shape: Shape
    weights: int
    is_binary: bool
    weight_bytes: int
    table_bytes: int
    fraction_bits: int | None
    membrane_share: float | None


@dataclasses.dataclass(frozen=True)
class DeploymentReport:
    """What an integer network needs on a device; printed, a table.

    Attributes:
      layers: those with weights and those of neurons, in order.
      sign_bytes: the bytes of all signs, at one bit each.
      weight_bytes: the bytes of all real weights, at 32 bits each.
      table_bytes: the bytes of all gains and shifts, at 32 bits each.
      constant_bytes: the bytes of all constants of the C code, including the padding of their last vectors.
      scratch_bytes: the working memory of the C code.
      float32_bytes: the bytes of the same weights, gains and shifts in float32.
      agreement: how often it decides differently from its model; None if it was not compared.
    """

    layers: tuple[LayerReport, ...]
    sign_bytes: int
    weight_bytes: int
    table_bytes: int
    constant_bytes: int
    scratch_bytes: int
    float32_bytes: int
    agreement: Agreement | None = None

    def __str__(self) -> str:
        sizes = (
            ("signs, one bit each", self.sign_bytes),
            ("real weights", self.weight_bytes),
            ("gains and shifts", self.table_bytes),
            ("constants in C", self.constant_bytes),
            ("scratch memory in C", self.scratch_bytes),
            ("all in float32", self.float32_bytes),
        )
        lines = _columns([("", "bytes"), *((name, f"{size:,}") for name, size in sizes)])
        head = ("layer", "map", "weights", "bytes", "gains, shifts", "fraction bits", "largest membrane")
        lines += ["", *_columns([head, *map(_row, self.layers)])]
        return "\n".join(lines if self.agreement is None else [*lines, "", f"{self.agreement}"])


def report_of(graph: Graph, proof: Proof, membrane_bits: int, source: Source) -> DeploymentReport:
    """Returns what a network needs.

    Args:
      graph: a graph of integers.
      proof: its bounds.
      membrane_bits: the width of membranes.
      source: the network in C.
    """
    layers = tuple(_layers(graph, proof, 2 ** (membrane_bits - 1)))
    signs = sum(layer.weight_bytes for layer in layers if layer.is_binary)
    tables = sum(
        4 * (node.scale.gain.size + node.scale.shift.size) for node in graph.nodes if isinstance(node, Current)
    )
    return DeploymentReport(
        layers,
        signs,
        sum(layer.weight_bytes for layer in layers) - signs,
        tables,
        source.constant_bytes,
        source.scratch_bytes,
        4 * sum(layer.weights for layer in layers) + tables,
    )


def _layers(graph: Graph, proof: Proof, limit: int) -> Iterator[LayerReport]:
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Synapse):
            currents = [each for each in graph.nodes if isinstance(each, Current) and _read_by(graph, each) == place]
            size = node.kernel.size
            tables = sum(4 * (each.scale.gain.size + each.scale.shift.size) for each in currents)
            weight_bytes = -(-size // 8) if node.is_binary else 4 * size
            yield LayerReport(node.name, node.shape, size, node.is_binary, weight_bytes, tables, None, None)
        elif isinstance(node, Neurons):
            current, share = first_added(graph.nodes, node.source), proof.membranes[place].most / limit
            assert isinstance(current, Current)
            yield LayerReport(node.name, node.shape, 0, False, 0, 0, current.fraction_bits, share)


def _read_by(graph: Graph, current: Current[Any]) -> int:
    """The place of the synapse whose sums make up a current, pooled or not."""
    place = current.source
    while isinstance(node := graph.nodes[place], SumPool | Flatten):
        place = node.source
    return place


def _row(layer: LayerReport) -> tuple[str, ...]:
    kind = "signs" if layer.is_binary else "whole"
    return (
        layer.name,
        "x".join(map(str, layer.shape)),
        f"{layer.weights:,} {kind}" if layer.weights else "",
        f"{layer.weight_bytes:,}" if layer.weights else "",
        f"{layer.table_bytes:,}" if layer.table_bytes else "",
        "" if layer.fraction_bits is None else f"{layer.fraction_bits}",
        "" if layer.membrane_share is None else f"{layer.membrane_share:.0%}",
    )


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines, with the first column aligned left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
