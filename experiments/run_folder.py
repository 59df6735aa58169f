"""A run's folder: its settings, its records, its final model."""

import dataclasses
import datetime
import json
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

import bsojax
from experiments.config import Config

PACKAGES = ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def create(config: Config, name: str) -> Path:
    """Creates the folder of a run and writes config.json.

    Raises:
      FileExistsError: the folder holds a run, or anything else.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    folder = config.output or Path("runs") / f"{name}-{stamp}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a run" if (folder / "config.json").exists() else "other files"
        raise FileExistsError(f"--output: {folder} already holds {what}; choose another folder or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"name": name, "config": as_json(config), **environment()})
    return folder


def environment() -> dict[str, Any]:
    """The command, versions and device of this process."""
    return {
        "command": shlex.join(["python", "-m", *_module_and_arguments()]),
        "versions": {"python": sys.version.split()[0]} | {package: version(package) for package in PACKAGES},
        "device": str(jax.devices()[0].device_kind),
    }


def as_json(config: Config) -> dict[str, Any]:
    """The config's fields as JSON values."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(config).items()}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people to read."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def append_record(folder: Path, record: dict[str, Any]) -> None:
    """Appends a line to metrics.jsonl; it is on disk when this returns."""
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def save_model(path: Path, state: bsojax.TrainState) -> None:
    """Writes the trained network as msgpack: signs at one bit a weight, real parameters, statistics."""
    packed = jax.tree.map(
        lambda leaf: {"bits": np.asarray(leaf.bits), "shape": np.array(leaf.shape, np.int32)},
        bsojax.pack_signs(state.signs),
        is_leaf=lambda leaf: isinstance(leaf, bsojax.PackedSigns),
    )
    tree = {"signs": packed, "params": state.params, "batch_stats": state.batch_stats}
    path.write_bytes(flax.serialization.msgpack_serialize(jax.device_get(tree)))


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


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec is not None else Path(sys.argv[0]).name
    return [name.removesuffix(".__main__"), *sys.argv[1:]]
