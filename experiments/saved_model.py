"""The trained network as a file: signs at one bit a weight, real parameters, statistics."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

import bsojax
from experiments.running.files import write_bytes


def save_model(path: Path, state: bsojax.TrainState) -> None:
    """Writes the trained network as msgpack: the deployed signs at one bit a weight, real parameters, statistics."""
    packed = jax.tree.map(
        lambda leaf: {"bits": np.asarray(leaf.bits), "shape": np.array(leaf.shape, np.int32)},
        bsojax.pack_signs(state.variables["signs"]),
        is_leaf=lambda leaf: isinstance(leaf, bsojax.PackedSigns),
    )
    tree = {"signs": packed, "params": state.params, "batch_stats": state.batch_stats}
    write_bytes(path, flax.serialization.msgpack_serialize(jax.device_get(tree)))


def load_model(path: Path) -> dict[str, Any]:
    """Reads what save_model wrote; returns the variables for ``model.apply``, signs as booleans."""
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    packed = jax.tree.map(
        lambda leaf: bsojax.PackedSigns(leaf["bits"], tuple(int(size) for size in leaf["shape"])),
        tree["signs"],
        is_leaf=lambda leaf: isinstance(leaf, dict) and "bits" in leaf,
    )
    return {**tree, "signs": bsojax.unpack_signs(packed)}


def started_from(path: Path, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the signs, real parameters and statistics that save_model wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--start: there is no model at {path}.")
    saved = load_model(path)
    for name in ("signs", "params", "batch_stats"):
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (saved[name], getattr(state, name))]
        if shapes[0] != shapes[1]:
            raise ValueError(f"--start: {path} holds another network; its '{name}' differ in names or shapes.")
    arrays = {name: jax.tree.map(jnp.asarray, saved[name]) for name in ("signs", "params", "batch_stats")}
    return dataclasses.replace(state, **arrays)
