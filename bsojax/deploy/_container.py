"""One file for arrays and their description: it is read completely, or refused before memory is allocated for it.

Layout, all numbers little-endian; the first 80 bytes mean the same in every version:

- 8 bytes: the magic, ``93 "bsojax" 0a``
- uint32: the version
- uint32: the length of the header
- 32 bytes: SHA-256 of everything before it and everything after it up to the end of the header
- 32 bytes: SHA-256 of the arrays
- the header, UTF-8 JSON: ``{"kind": text, "header": object, "arrays": [[name, dtype, shape], ...]}``
- the arrays in that order, in C order and without gaps; booleans eight per byte, as numpy.packbits

Nothing in a file is executed or imported, and no name in it becomes a path.
"""

import hashlib
import io
import math
import os
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bsojax.deploy._container_header import DTYPES, HEADER_LIMIT, Entry, parsed, quoted, refuse, text_of

MAGIC = b"\x93bsojax\n"
VERSION = 1

_PREFIX = struct.Struct("<8sII32s32s")


Check = Callable[[dict[str, Any], dict[str, Entry]], None]
"""Checks a header and the entries of the arrays by name; raises to refuse the file."""


def write(path: str | os.PathLike[str], kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file, all of it or nothing: a process that is killed leaves the previous file in place.

    Args:
      path: where to write; the folder exists.
      kind: what the file holds, in a few words; reading it as another kind fails with a message that gives it.
      header: JSON values by name, at most 30 deep, with finite numbers.
      arrays: by name; slashes in names form a tree in which no array is both a leaf and a branch. Booleans take one bit
        each.

    Raises:
      ValueError: a name or dtype cannot be written, or the header is too large.
    """
    path = Path(path)
    held = {name: np.asarray(array) for name, array in arrays.items()}
    text = text_of(path, kind, header, held)
    blobs = [_encoded(array) for array in held.values()]
    payload = hashlib.sha256()
    for blob in blobs:
        payload.update(blob.data)
    prefix = _prefix(VERSION, text, payload.digest())
    _replace(path, [prefix, text, *blobs])


def read(
    path: str | os.PathLike[str], kind: str, check: Check | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a file that write wrote; returns its header and its arrays by name.

    It uses no memory beyond that of the arrays, whose sizes must add up to the file's before any is allocated.

    Args:
      path: the file.
      kind: the kind that it must hold.
      check: called before the arrays are read.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is not such a file, is damaged or truncated, or is of another kind or a newer version. The message
        begins with the path.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would wait forever
        refuse(path, "it is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_PREFIX.size)
        if not is_container(start):
            refuse(path, "it is not a bsojax file, or its beginning is damaged")
        if len(start) < _PREFIX.size:
            refuse(path, f"it ends after {size} bytes; it was cut short")
        _, version, length, _, payload = _PREFIX.unpack(start)
        if length > HEADER_LIMIT:
            refuse(path, f"it says that its header has {length:,} bytes; it is damaged")
        if _PREFIX.size + length > size:
            refuse(path, f"it ends after {size:,} bytes, within its header; it was cut short")
        text = file.read(length)
        if _prefix(version, text, payload) != start:
            refuse(path, "the checksum of its header is wrong; it is damaged")
        if version > VERSION:
            refuse(path, f"its format version is {version}, and this bsojax knows {VERSION}; update bsojax")
        found, header, entries = parsed(path, text)
        if found != kind:
            refuse(path, f"it holds {quoted(found)}, not {quoted(kind)}")
        expected = _PREFIX.size + length + sum(entry.stored_bytes for entry in entries.values())
        if size != expected:
            refuse(path, f"it has {size:,} bytes, and its arrays need {expected:,}; it was cut, or is damaged")
        if check is not None:
            check(header, entries)
        return header, _read_arrays(path, file, entries, payload)


def is_container(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a container, as far as they go."""
    return bool(start) and start[: len(MAGIC)] == MAGIC[: len(start)]


def _prefix(version: int, text: bytes, payload: bytes) -> bytes:
    start = struct.pack("<8sII", MAGIC, version, len(text))
    return start + hashlib.sha256(start + payload + text).digest() + payload


def _encoded(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in a file, as uint8."""
    if array.dtype == bool:
        return np.packbits(array.reshape(-1))
    flat = np.ascontiguousarray(array, DTYPES[array.dtype.name]).reshape(-1)
    return _little(flat.view(np.uint8), flat.dtype)


def _read_arrays(
    path: Path, file: io.BufferedReader, entries: Mapping[str, Entry], payload: bytes
) -> dict[str, np.ndarray]:
    digest = hashlib.sha256()
    arrays = {}
    for name, entry in entries.items():
        raw = np.empty(entry.stored_bytes, np.uint8)
        if file.readinto(raw.data) != len(raw):
            refuse(path, "it became shorter while it was read")
        digest.update(raw.data)
        arrays[name] = _decoded(raw, entry)
    if digest.digest() != payload:
        refuse(path, "the checksum of its arrays is wrong; it is damaged")
    return arrays


def _decoded(raw: np.ndarray, entry: Entry) -> np.ndarray:
    if entry.dtype == "bool":
        return np.unpackbits(raw, count=math.prod(entry.shape)).view(bool).reshape(entry.shape)
    dtype = DTYPES[entry.dtype]
    return _little(raw, dtype).view(dtype).reshape(entry.shape)


def _little(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Swaps the bytes of elements where the machine's order differs from the file's, in either direction."""
    return raw if sys.byteorder == "little" else raw.reshape(-1, dtype.itemsize)[:, ::-1].reshape(-1)


def _replace(path: Path, parts: list[Any]) -> None:
    """Writes a file next to the one of this name, and replaces that one once the new file is on disk."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is in the folder, which is a file of its own
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
