"""Reads the text of a compiled program: what devices exchange, how matrices are multiplied, what is copied in a loop.

XLA prints a program as computations of instructions. Sizes are those of the arrays as written, except where a layout
has tiles, as a TPU's do: then ``Array.padded`` is what the array takes in memory, with its last axes padded.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128} | {
    f"{sign}{bits}": max(bits, 8) for sign in "su" for bits in (4, 8, 16, 32, 64)
}
"""Bits of an element in memory, by dtype; any other (tokens) takes none."""

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
PRODUCTS = ("convolution", "dot")
MOVES = ("copy", "transpose")

_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.\-]+)")


class Array(NamedTuple):
    """An array as written in an instruction's type.

    Attributes:
      dtype: as XLA names it, such as "f32" or "pred".
      shape: its sizes.
      order: its axes from the one that lies densest in memory to the outermost; empty if none is given.
      tile: sizes to which the densest axes are padded, the densest last; empty if there are no tiles.
      space: the memory that holds it: 0 is the device's main memory, 1 a TPU's on-chip one.
    """

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def size(self) -> int:
        """The bytes of its elements."""
        return math.prod(self.shape) * BITS.get(self.dtype, 0) // 8

    @property
    def padded(self) -> int:
        """The bytes that it takes in memory."""
        sides = [1] * len(self.tile) + [self.shape[axis] for axis in reversed(self.order)]
        for place, side in enumerate(reversed(self.tile), 1):
            sides[-place] = -(-sides[-place] // side) * side
        return math.prod(sides) * BITS.get(self.dtype, 0) // 8


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
      name: unique within its computation.
      opcode: such as "fusion" or "all-reduce-start".
      arrays: what it gives: one array, or the arrays of a tuple.
      operands: names of the instructions that it takes.
      text: what follows the opcode.
      computation: the name of its computation.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    computation: str

    @property
    def origin(self) -> str:
        """The operation of the program before compilation, as JAX names it; empty if it is lost."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""


class Collective(NamedTuple):
    """An exchange between devices: its kind, its results, and whether it is in a loop."""

    kind: str
    arrays: tuple[Array, ...]
    in_loop: bool


class Product(NamedTuple):
    """A convolution or matrix product: dtypes of its operands and its result, the precision, and where it comes from.

    The precision is "default" if the text has none: on a TPU, one pass of the matrix unit over bfloat16 operands.
    """

    operands: tuple[str, ...]
    result: str
    precision: str
    origin: str
    in_loop: bool


class Copy(NamedTuple):
    """An array that is written again in another order or shape, not only moved between memories."""

    before: Array
    after: Array
    origin: str
    in_loop: bool


class Program:
    """A compiled program.

    Args:
      text: as ``compiled.as_text()`` gives it.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        current = ""
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                current = head[1]
            elif found := _INSTRUCTION.match(line):
                instruction = _instruction(found, current)
                self.computations.setdefault(current, {})[instruction.name] = instruction
        self._in_loops = self._reached({name for one in self if one.opcode == "while" for name in _called(one, "body")})
        self._fused = {name for one in self if one.opcode == "fusion" for name in _called(one, "calls")}

    def __iter__(self) -> Iterator[Instruction]:
        for computation in self.computations.values():
            yield from computation.values()

    def in_loop(self, instruction: Instruction) -> bool:
        """Whether an instruction is within the body of a loop, or what that calls."""
        return instruction.computation in self._in_loops

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """The instructions of the same computation that an instruction takes."""
        here = self.computations[instruction.computation]
        return [here[name] for name in instruction.operands if name in here]

    def collectives(self) -> list[Collective]:
        """Returns the exchanges between devices; one that starts and is waited for counts once."""
        found = []
        for one in self:
            kind = one.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                # What starts gives its operands too, where it is not an all-reduce.
                half = one.opcode.endswith("-start") and kind != "all-reduce"
                arrays = one.arrays[len(one.operands) : 2 * len(one.operands)] if half else one.arrays
                found.append(Collective(kind, arrays, self.in_loop(one)))
        return found

    def products(self) -> list[Product]:
        """Returns the convolutions and matrix products."""
        return [
            Product(
                tuple(operand.arrays[0].dtype for operand in self.operands(one)),
                one.arrays[0].dtype,
                _precision(one),
                one.origin,
                self.in_loop(one),
            )
            for one in self
            if one.opcode in PRODUCTS
        ]

    def copies(self) -> list[Copy]:
        """Returns the copies and transpositions that are separate operations, except moves between memories."""
        found = []
        for one in self:
            if one.opcode in MOVES and (one.computation not in self._fused or self._only_moves(one.computation)):
                before, after = self.operands(one)[0].arrays[0], one.arrays[0]
                if one.opcode == "transpose" or (before.order, before.tile) != (after.order, after.tile):
                    found.append(Copy(before, after, one.origin, self.in_loop(one)))
        return found

    def carried(self) -> list[Array]:
        """Returns the arrays that the largest loop carries from turn to turn."""
        loops = [one.arrays for one in self if one.opcode == "while"]
        return list(max(loops, key=lambda arrays: sum(array.padded for array in arrays), default=()))

    def dtypes(self) -> set[str]:
        """Returns the dtypes of all arrays."""
        return {array.dtype for one in self for array in one.arrays}

    def _only_moves(self, computation: str) -> bool:
        return all(one.opcode in ("parameter", *MOVES) for one in self.computations[computation].values())

    def _reached(self, names: set[str]) -> set[str]:
        reached, todo = set(), set(names)
        while todo:
            name = todo.pop()
            reached.add(name)
            for one in self.computations.get(name, {}).values():
                todo |= {called for called in _NAME.findall(one.text) if called in self.computations} - reached
        return reached


def arrays(text: str) -> tuple[Array, ...]:
    """Returns the arrays that a type names: one, or those of a tuple."""
    return tuple(_array(found) for found in _ARRAY.finditer(text))


def _array(found: re.Match[str]) -> Array:
    dtype, sizes, order, layout = found.groups()
    tile = re.search(r"T\(([\d,]+)\)", layout or "")
    space = re.search(r"S\((\d+)\)", layout or "")
    return Array(
        dtype, _numbers(sizes), _numbers(order), _numbers(tile[1] if tile else ""), int(space[1]) if space else 0
    )


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in (text or "").split(",") if number)


def _instruction(found: re.Match[str], computation: str) -> Instruction:
    name, kind, opcode, text = found.groups()
    inside = text.split("), ", 1)[0]
    return Instruction(name, opcode, arrays(kind), tuple(_NAME.findall(inside)), text, computation)


def _precision(product: Instruction) -> str:
    found = re.search(r"operand_precision=\{(\w+)", product.text)
    return found[1] if found else "default"


def _called(instruction: Instruction, role: str) -> list[str]:
    return re.findall(rf"{role}=%?([\w.\-]+)", instruction.text)
