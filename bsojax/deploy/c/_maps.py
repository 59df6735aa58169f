"""Where maps are placed while they are needed: in one piece of memory whose places are reused."""

import dataclasses

from bsojax.deploy._graph import Shape
from bsojax.deploy.c._constants import words_of


@dataclasses.dataclass(eq=False)
class Buffer:
    """A piece of the scratch memory.

    Attributes:
      words: its size in words of 32 bits.
      first, last: the passes that first write it and last read it.
      offset: its place, once it has one.
    """

    words: int
    first: int
    last: int
    offset: int = -1


@dataclasses.dataclass(frozen=True)
class Map:
    """A map in C.

    Attributes:
      kind: the C type of its elements.
      shape: rows, columns, channels.
      planes: for spikes, the binary digits of their sum.
      stride: for numbers, how many there are from one pixel to the next.
      is_still: whether it is the same at every time step and held once.
      buffer: the buffer that holds it; None for the input.
    """

    kind: str
    shape: Shape
    planes: int
    stride: int
    is_still: bool
    buffer: Buffer | None

    @property
    def is_spikes(self) -> bool:
        """Whether its elements are words of spikes."""
        return self.kind == "word"

    @property
    def literal(self) -> str:
        """The map as C's struct."""
        rows, columns, channels = self.shape
        return f"(Map){{{rows}, {columns}, {channels}, {self.planes}, {self.stride}, {int(self.is_still)}}}"

    @property
    def pointer(self) -> str:
        """A C expression that points to it."""
        if self.buffer is None:
            return "x"
        return f"({self.kind} *)(scratch->memory + {self.buffer.offset})"


def size(kind: str, shape: Shape, planes: int, stride: int, steps: int) -> int:
    """The words that a map takes."""
    rows, columns, channels = shape
    each = planes * words_of(channels) if kind == "word" else stride
    return steps * rows * columns * each


def place(buffers: list[Buffer]) -> int:
    """Gives each buffer a place that no other has at the same time; returns the total number of words."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda buffer: -buffer.words):
        beside = [other for other in placed if buffer.first <= other.last and other.first <= buffer.last]
        starts = [0, *(other.offset + other.words for other in beside)]
        buffer.offset = min(
            start
            for start in starts
            if all(start + buffer.words <= other.offset or other.offset + other.words <= start for other in beside)
        )
        placed.append(buffer)
    return max((buffer.offset + buffer.words for buffer in buffers), default=0)
