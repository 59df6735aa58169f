"""A growing C source, pass by pass."""

import dataclasses
from collections.abc import Callable

import numpy as np

from bsojax.deploy._graph import Graph
from bsojax.deploy.c._constants import c_array, padded
from bsojax.deploy.c._maps import Buffer, Map, size


@dataclasses.dataclass
class Parts:
    """A growing C source.

    Attributes:
      graph: the network.
      block: time steps that are computed at once: all of them for a static frame, 1 for a sequence.
      input_digits: binary digits of the largest input; 0 where inputs may be negative.
      observed: whether spikes that are only counted are held too, to be compared.
      constants, functions: definitions.
      calls: functions that write the call of each pass, once buffers have their places.
      maps: by the place of their node.
      counts: the maps of counted spikes, by the place of their neurons.
      buffers: those of the scratch memory.
      membranes: the number of elements of each array of membranes that is kept between calls.
      constant_bytes: the size of all constants.
    """

    graph: Graph
    block: int
    input_digits: int
    observed: bool
    constants: list[str] = dataclasses.field(default_factory=list)
    functions: list[str] = dataclasses.field(default_factory=list)
    calls: list[Callable[[], str]] = dataclasses.field(default_factory=list)
    maps: dict[int, Map] = dataclasses.field(default_factory=dict)
    counts: dict[int, Map] = dataclasses.field(default_factory=dict)
    buffers: list[Buffer] = dataclasses.field(default_factory=list)
    membranes: dict[int, int] = dataclasses.field(default_factory=dict)
    constant_bytes: int = 0

    def constant(self, kind: str, name: str, values: np.ndarray) -> str:
        """Adds an array of constants, only once where several passes read it; returns its name."""
        if (made := c_array(kind, name, values)) not in self.constants:
            self.constants.append(made)
            self.constant_bytes += 4 * values.size
        return name

    def buffer(self, words: int) -> Buffer:
        """Adds a piece of scratch memory that is used from the next call on."""
        made = Buffer(words, len(self.calls), len(self.calls))
        self.buffers.append(made)
        return made

    def new_map(self, place: int, kind: str, *, planes: int = 1, stride: int = 0, is_still: bool = False) -> Map:
        """Adds the map of a node."""
        shape = self.graph.nodes[place].shape
        stride = stride or shape[-1]
        words = size(kind, shape, planes, stride, 1 if is_still else self.block)
        self.maps[place] = Map(kind, shape, planes, stride, is_still, self.buffer(words))
        return self.maps[place]

    def used(self, found: Map) -> Map:
        """Records that the next call reads a map."""
        if found.buffer is not None:
            found.buffer.last = max(found.buffer.last, len(self.calls))
        return found


@dataclasses.dataclass
class Function:
    """A pass as it is being written.

    Attributes:
      parts: the source.
      name: the name of the function.
      lanes: outputs that are computed side by side.
      parameters: types and names, and the arguments passed for them.
      before: lines in front of the loop over pixels.
      each_pixel: lines for each pixel.
      each_block: lines for each block of outputs of a pixel.
    """

    parts: Parts
    name: str
    lanes: int
    parameters: list[tuple[str, Callable[[], str]]] = dataclasses.field(default_factory=list)
    before: list[str] = dataclasses.field(default_factory=list)
    each_pixel: list[str] = dataclasses.field(default_factory=list)
    each_block: list[str] = dataclasses.field(default_factory=list)

    def takes(self, parameter: str, value: Callable[[], str]) -> None:
        """Adds a parameter."""
        self.parameters.append((parameter, value))

    def reads(self, found: Map, name: str = "in") -> None:
        """Adds a map that is read."""
        self.parts.used(found)
        self.takes(f"const {found.kind} *restrict {name}", lambda: found.pointer)

    def write(self, shape: tuple[int, int, int], groups: int) -> None:
        """Adds the function and its call."""
        rows, columns, channels = shape
        parameters = ", ".join(parameter for parameter, _ in self.parameters) or "void"
        loop = f"for (int first = 0; first < {padded(channels, self.lanes)}; first += {self.lanes}) {{"
        each = channels // groups
        lines = [
            f"static void {self.name}({parameters}) {{",
            *(f"  {line}" for line in self.before),
            f"  for (int y = 0; y < {rows}; y++)",
            f"    for (int x = 0; x < {columns}; x++) {{",
            f"      const int pixel = y * {columns} + x;",
            "      (void)pixel;",
            *(f"      {line}" for line in self.each_pixel),
            f"      {loop}",
            "        int32_t sum[BLOCK][LANES];",
            *([f"        const int group = first / {each};"] if groups > 1 else []),
            *(f"        {line}" for line in self.each_block),
            "      }",
            "    }",
            "}",
        ]
        self.parts.functions.append("\n".join(lines) + "\n")
        values = [value for _, value in self.parameters]
        self.parts.calls.append(lambda: f"{self.name}({', '.join(value() for value in values)});")
