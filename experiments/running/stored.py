"""The leaves of a state as they are stored: signs at one bit each, the others unchanged, each with a checksum."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import bsojax
from bsojax.signs import leaf_name
from experiments.running.devices import gathered


def stored_shapes(state: bsojax.TrainState) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns by name what is stored of each leaf of a state: shape, dtype and placement; for signs, packed bits."""
    return {
        leaf_name(path): jax.ShapeDtypeStruct(
            (_bytes(leaf),) if leaf.dtype == bool else leaf.shape,
            np.uint8 if leaf.dtype == bool else leaf.dtype,
            sharding=leaf.sharding,
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def stored_leaves(state: bsojax.TrainState) -> dict[str, Any]:
    """Returns by name what is stored of each leaf of a state; for signs, packed bits in host memory."""
    return {
        leaf_name(path): np.packbits(whole(leaf)) if leaf.dtype == bool else leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def state_of(leaves: Mapping[str, Any], like: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state whose leaves were stored, with its leaves placed like those of another state."""

    def restored(path: Any, leaf: jax.Array) -> jax.Array:
        if not leaf.size:
            return leaf
        stored = leaves[leaf_name(path)]
        if leaf.dtype != bool:
            return stored
        signs = np.unpackbits(whole(stored), count=leaf.size).astype(bool).reshape(leaf.shape)
        return jax.device_put(signs, leaf.sharding)

    return jax.tree_util.tree_map_with_path(restored, like)


def compare(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises ValueError, naming the first difference, unless two sets of leaves have equal names, dtypes and shapes."""
    for name, kind in wanted.items():
        if name not in found:
            raise ValueError(f"leaf '{name}' is missing")
        if list(found[name]) != list(kind):
            raise ValueError(f"leaf '{name}' is {_shown(found[name])}, not {_shown(kind)}")
    for name in found:
        if name not in wanted:
            raise ValueError(f"leaf '{name}' is unknown to this run")


def checksum(leaf: Any) -> int:
    """Returns the CRC-32 of a leaf's bytes; all processes of a run that share the leaf must ask for it together."""
    return zlib.crc32(np.ascontiguousarray(whole(leaf)).tobytes())


def whole(leaf: Any) -> np.ndarray:
    """Returns all of a leaf in host memory; the processes of a run that share the leaf must ask for it together."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return gathered(leaf)
    return np.asarray(leaf)


def kind_of(leaf: Any) -> list[Any]:
    """Returns dtype and shape of a leaf, as JSON values."""
    return [np.dtype(leaf.dtype).name, list(leaf.shape)]


def _shown(kind: Any) -> str:
    return f"{kind[0]}{list(kind[1])}"


def _bytes(leaf: Any) -> int:
    return (leaf.size + 7) // 8
