"""The header of a file of arrays: JSON from any source, which is trusted only after it has been checked."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

HEADER_LIMIT = 2**19
"""The most bytes of a header: what a parser makes of that many fits into a small machine's memory."""

DTYPES = {
    name: np.dtype(jnp.bfloat16 if name == "bfloat16" else name)
    for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    + ("float16", "bfloat16", "float32", "float64")
}
"""The dtypes of arrays by name."""

_ARRAYS, _NAME, _RANK, _SIZE, _DEPTH = 2**14, 512, 16, 2**48, 32  # limits: far above those of a network


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a header states about an array.

    Attributes:
      dtype: the name of its dtype.
      shape: its shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def stored_bytes(self) -> int:
        """The bytes that it takes in the file."""
        size = math.prod(self.shape)
        return (size + 7) // 8 if self.dtype == "bool" else size * DTYPES[self.dtype].itemsize


def refuse(path: Path, reason: str) -> NoReturn:
    """Raises the one error for a file that is not as it must be."""
    raise ValueError(f"{path}: {reason}.")


def quoted(value: Any) -> str:
    """Returns a value from a file in a form fit for a message: short, without terminal control characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def text_of(path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the text of a header; refuses what parsed would refuse."""
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({"kind": kind, "header": header, "arrays": listed}, separators=(",", ":"), allow_nan=False)
    if len(text) > HEADER_LIMIT:
        refuse(path, f"a header of {len(text):,} bytes is more than the {HEADER_LIMIT:,} that a file may have")
    parsed(path, text.encode())
    return text.encode()


def parsed(path: Path, text: bytes) -> tuple[Any, dict[str, Any], dict[str, Entry]]:
    """Returns the kind, the header and the entries of the arrays from a header's text."""
    try:
        tree = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        refuse(path, f"its header is not readable JSON ({quoted(str(error))}); it is damaged")
    _check_depth(path, tree)
    parts = tree if isinstance(tree, dict) else {}
    if parts.keys() != {"kind", "header", "arrays"} or not isinstance(parts["header"], dict):
        refuse(path, "its header lacks a part, or has one too many; it is damaged")
    return parts["kind"], parts["header"], _entries(path, parts["arrays"])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(made := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _check_depth(path: Path, tree: Any) -> None:
    """Refuses values nested too deeply for recursive functions."""
    level = [tree]
    for _ in range(_DEPTH):
        level = [node for node in level if isinstance(node, dict | list)]
        if not level:
            return
        level = [item for node in level for item in (node.values() if isinstance(node, dict) else node)]
    refuse(path, f"its header is nested more than {_DEPTH} deep")


def _entries(path: Path, listed: Any) -> dict[str, Entry]:
    """Returns the entries of a list of names, dtypes and shapes; refuses those that no array can have."""
    if not isinstance(listed, list) or len(listed) > _ARRAYS:
        refuse(path, f"it must list its arrays, and no more than {_ARRAYS:,}")
    entries: dict[str, Entry] = {}
    for item in listed:
        if not (isinstance(item, list) and len(item) == 3):
            refuse(path, f"{quoted(item)} is not an array's name, dtype and shape")
        name, dtype, shape = item
        if not is_name(name):
            refuse(path, f"{quoted(name)} is not a name for an array")
        if name in entries:
            refuse(path, f"two arrays are named {quoted(name)}")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            refuse(path, f"array {quoted(name)} is of dtype {quoted(dtype)}; known are {', '.join(DTYPES)}")
        if not is_shape(shape):
            refuse(path, f"array {quoted(name)} cannot have the shape {quoted(shape)}")
        entries[name] = Entry(dtype, tuple(shape))
    for name in entries:
        parts = name.split("/")
        for end in range(1, len(parts)):
            if (branch := "/".join(parts[:end])) in entries:
                refuse(path, f"{quoted(branch)} cannot be an array and hold the array {quoted(name)}")
    return entries


def is_name(name: Any) -> bool:
    """Whether a name is a path within a tree and nothing else, such as a file path."""
    if not isinstance(name, str) or len(name) > _NAME or not name.isprintable() or "\\" in name:
        return False
    parts = name.split("/")
    return len(parts) <= _DEPTH and all(part not in ("", ".", "..") for part in parts)


def is_shape(shape: Any) -> bool:
    """Whether NumPy could hold the shape, with one byte per element or with eight."""
    if not isinstance(shape, list) or len(shape) > _RANK:
        return False
    sides = [size for size in shape if type(size) is int and 0 <= size <= _SIZE]  # True is an int too
    return len(sides) == len(shape) and math.prod(size or 1 for size in sides) <= _SIZE
