"""model.msgpack, the trained networks of earlier runs, which are not trusted either.

It is the subset of msgpack in which they were written: maps by name, and at their leaves flax's arrays, an extension
that contains ``(shape, dtype, bytes)``. Readers of all of msgpack allocate lists as long as a file claims before they
look at what is there.
"""

import io
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bsojax.deploy._container_header import DTYPES, is_name, is_shape, quoted, refuse

_DEPTH, _ENTRIES = 32, 2**14
_COLLECTIONS = {"signs", "params", "batch_stats"}


def is_earlier(start: bytes) -> bool:
    """Whether a file's first byte is that of a model.msgpack, a map of three."""
    return start[:1] == b"\x83"


def read_earlier(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a model.msgpack by name, signs as booleans.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a model.msgpack, or is truncated.
    """
    with path.open("rb") as file:
        reader = _Reader(path, file, os.fstat(file.fileno()).st_size)
        reader.map_of("", 0)
        if reader.at != reader.size:
            refuse(path, f"{reader.size - reader.at:,} bytes follow the network; it is damaged")
        if reader.top != _COLLECTIONS:
            refuse(path, f"it holds {quoted(sorted(reader.top))}, and a model.msgpack holds {sorted(_COLLECTIONS)}")
        return _with_signs(path, reader.arrays)


class _Reader:
    """A position in a file, and what was read before it."""

    def __init__(self, path: Path, file: io.BufferedReader, size: int) -> None:
        self.path, self.file, self.size, self.at = path, file, size, 0
        self.top: set[str] = set()
        self.arrays: dict[str, np.ndarray] = {}
        self.entries = 0

    def map_of(self, prefix: str, depth: int) -> None:
        """Reads a map and the maps in it."""
        count = self._length(0x80, 0x8F, {0xDE: 2, 0xDF: 4})
        if count is None:
            self._damaged()
        if depth > _DEPTH:
            refuse(self.path, f"it is nested more than {_DEPTH} deep")
        for _ in range(count):
            self.entries += 1
            key = self._text()
            name = f"{prefix}{key}"
            if self.entries > _ENTRIES or not is_name(name) or "/" in key:
                refuse(self.path, f"{quoted(name)} is not a name for an array, or is one of too many")
            if depth == 0:
                self.top.add(key)
            if self._peek() in (0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)):
                if name in self.arrays:
                    refuse(self.path, f"two arrays are named {quoted(name)}")
                self.arrays[name] = self._array(name)
            else:
                self.map_of(f"{name}/", depth + 1)

    def _damaged(self) -> NoReturn:
        refuse(self.path, f"at byte {self.at:,} it is not a model.msgpack, or is damaged")

    def _take(self, count: int) -> bytes:
        self.at += count
        found = self.file.read(count) if self.at <= self.size else b""
        if len(found) < count:
            refuse(self.path, f"it ends after {self.size:,} bytes; it was cut short, or is damaged")
        return found

    def _peek(self) -> int:
        return (self.file.peek(1) or self._take(1))[0]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _length(self, first: int, last: int, longer: dict[int, int]) -> Any:
        """The length given in a first byte, or in the bytes that it announces; None if it is of another type."""
        byte = self._peek()
        if not (first <= byte <= last or byte in longer):
            return None
        self._take(1)
        return byte - first if first <= byte <= last else self._number(longer[byte])

    def _text(self) -> str:
        count = self._length(0xA0, 0xBF, {0xD9: 1, 0xDA: 2, 0xDB: 4})
        if count is None or count > 512:
            self._damaged()
        try:
            return self._take(count).decode()
        except UnicodeDecodeError:
            self._damaged()

    def _array(self, name: str) -> np.ndarray:
        """Reads an array of flax: an extension of type 1 that holds a list of shape, dtype and bytes."""
        byte = self._number(1)
        count = 2 ** (byte - 0xD4) if byte >= 0xD4 else self._number({0xC7: 1, 0xC8: 2, 0xC9: 4}[byte])
        if self._number(1) != 1:
            self._damaged()
        end = self.at + count
        if self._length(0x90, 0x9F, {}) != 3:
            self._damaged()
        shape = [self._size() for _ in range(self._length(0x90, 0x9F, {0xDC: 2}) or 0)]
        dtype = self._text()
        if not is_shape(shape) or dtype not in DTYPES or dtype == "bool":
            refuse(self.path, f"array {quoted(name)} cannot be {quoted(dtype)} of shape {quoted(shape)}")
        held = self._length(0, -1, {0xC4: 1, 0xC5: 2, 0xC6: 4})
        if held != math.prod(shape) * DTYPES[dtype].itemsize or self.at + held != end:
            refuse(self.path, f"array {quoted(name)} does not have the size of its shape; it is damaged")
        return np.frombuffer(self._take(held), DTYPES[dtype]).reshape(shape)

    def _size(self) -> int:
        size = self._length(0x00, 0x7F, {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8})
        if size is None:
            self._damaged()
        return int(size)


def _with_signs(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turns the bits and the shape that represent each leaf of signs into booleans."""
    made = {}
    for name, array in arrays.items():
        leaf, _, part = name.rpartition("/")
        if not name.startswith("signs/"):
            made[name] = array
        elif part == "bits":
            shape = arrays.get(f"{leaf}/shape", np.array(0.5)).tolist()
            if not is_shape(shape) or array.dtype != np.uint8 or array.shape != ((math.prod(shape) + 7) // 8,):
                refuse(path, f"the signs {quoted(leaf)} do not have as many bits as their shape; it is damaged")
            made[leaf] = np.unpackbits(array, count=math.prod(shape)).view(bool).reshape(shape)
        elif part != "shape" or f"{leaf}/bits" not in arrays:
            refuse(path, f"{quoted(name)} are not signs")
    return made
