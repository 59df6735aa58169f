"""Checkpoints of a training: written whole or not at all, and never restored unless every leaf is what was saved."""

import functools
import gc
import json
import logging
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

import bsojax
from bsojax._signs import leaf_name
from experiments.config import Config, as_json
from experiments.running.devices import agreed, is_first
from experiments.running.progress import Progress

DAMAGED = "damaged-"
"""What the name of a checkpoint begins with that could not be restored: it is set aside, not deleted."""

DELETED = "deleted-"
"""What the name of a checkpoint begins with while it is being deleted."""


class Checkpoints:
    """The checkpoints of a training, each a folder ``BATCHES-RECORDS`` named by what was done when it was written.

    A checkpoint holds the leaves of the state, signs at one bit each; and as JSON the place in the data, the random
    key, the records, the config, and of every leaf its dtype, shape and checksum. Orbax writes it under another name
    first, so that one that was not finished is never taken for a checkpoint.

    Args:
      folder: where they lie; what processes that were killed have left there is cleared away.
      config: the config of the run.
      batches: batches an epoch.
    """

    def __init__(self, folder: Path, config: Config, batches: int) -> None:
        self._folder, self._config, self._batches = folder.resolve(), config, batches
        self._agreed = agreed()
        self._clear()

    def names(self) -> list[str]:
        """The names of the checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.name.replace("-", "", 1).isdecimal())

    def path(self, name: str) -> Path:
        """Where the checkpoint of a name lies."""
        return self._folder / name

    def save(self, progress: Progress) -> str:
        """Writes a checkpoint, deletes those that need not be kept, and returns its name.

        Raises:
          OSError: it could not be written, as on a full disk; the checkpoints before it are untouched.
        """
        name = _name((progress.epoch - 1) * self._batches + progress.batch, len(progress.records))
        if name in self.names():
            return name
        leaves = stored_leaves(progress.state)
        about = _sealed(_about(progress, self._config, leaves))
        arrays = {key: leaf for key, leaf in leaves.items() if leaf.size}  # Orbax refuses empty arrays
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        _, reason = _attempted(lambda: _written(self.path(name), items))
        if reason:
            self._clear()
            raise OSError(f"{self.path(name)}: the checkpoint could not be written ({reason}).")
        if is_first():
            self._delete(progress.records)
        return name

    def restore(self, like: bsojax.TrainState) -> tuple[Progress | None, dict[str, str]]:
        """Returns the newest good checkpoint, and why newer ones are not good, by their names.

        Those that are not good are set aside under other names. None: there is no checkpoint yet.

        Args:
          like: a fresh state of the same config, whose leaves lie where those restored shall lie.

        Raises:
          ValueError: there are checkpoints, and none is good.
        """
        skipped: dict[str, str] = {}
        for name in reversed(self.names()):
            found, reason = _attempted(functools.partial(self._read, name, like))
            if self._agreed(bool(reason)):
                skipped[name] = reason or "another process could not read it"
                continue
            about, leaves = found
            changed = [key for key, leaf in leaves.items() if checksum(leaf) != about["checksums"][key]]
            if changed:
                skipped[name] = f"leaf '{changed[0]}' does not hold what was saved: its checksum differs"
                continue
            self._set_aside(skipped)
            return _progress(about, leaves, like), skipped
        if skipped:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            raise ValueError(f"--resume: no checkpoint in {self._folder} can be restored ({reasons}).")
        return None, skipped

    def _read(self, name: str, like: bsojax.TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a checkpoint whose leaves have the names, dtypes and shapes of those of a state; others raise."""
        wanted = stored_shapes(like)
        with _checkpointer() as checkpointer:
            items = ocp.args.Composite(about=ocp.args.JsonRestore())
            about = _unsealed(checkpointer.restore(self.path(name), items)["about"])
            compare({key: _kind(leaf) for key, leaf in wanted.items()}, about["leaves"])
            wanted = {key: leaf for key, leaf in wanted.items() if leaf.size}
            stored = checkpointer.metadata(self.path(name)).item_metadata["state"].tree
            compare({key: _kind(leaf) for key, leaf in wanted.items()}, {key: _kind(stored[key]) for key in stored})
            items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
            return about, checkpointer.restore(self.path(name), items)["state"]

    def _set_aside(self, names: Mapping[str, str]) -> None:
        if is_first():
            for name in names:
                shutil.rmtree(self.path(DAMAGED + name), ignore_errors=True)
                self.path(name).rename(self.path(DAMAGED + name))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints were set aside")

    def _delete(self, records: tuple[dict[str, Any], ...]) -> None:
        """Deletes all but the newest checkpoints and, where evaluations are on validation data, the best."""
        names = self.names()
        kept = set(names[-self._config.session.keep :])
        if self._config.validation:
            calls = self._config.updates_per_batch
            accuracies = {
                _name(record["updates"] // calls, count): record["eval_accuracy"]
                for count, record in enumerate(records, 1)
            }
            kept |= set(sorted(set(names) & set(accuracies), key=lambda name: accuracies[name])[-1:])
        for name in set(names) - kept:
            # Renamed first: a process that is killed while deleting leaves no half of a checkpoint under its name.
            shutil.rmtree(self.path(name).rename(self.path(DELETED + name)))

    def _clear(self) -> None:
        if is_first() and self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.startswith(DELETED) or ".orbax-checkpoint-tmp" in path.name:
                    shutil.rmtree(path, ignore_errors=True)


def stored_shapes(state: bsojax.TrainState) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what is stored of each leaf of a state, by name: its shape, dtype and place; of signs, packed bits."""
    return {
        leaf_name(path): jax.ShapeDtypeStruct(
            (_bytes(leaf),) if leaf.dtype == bool else leaf.shape,
            np.uint8 if leaf.dtype == bool else leaf.dtype,
            sharding=leaf.sharding,
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def stored_leaves(state: bsojax.TrainState) -> dict[str, Any]:
    """Returns what is stored of each leaf of a state, by name; of signs, packed bits in host memory."""
    return {
        leaf_name(path): np.packbits(whole(leaf)) if leaf.dtype == bool else leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def state_of(leaves: Mapping[str, Any], like: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state of which these leaves were stored; its leaves lie where those of another do."""

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
    """Raises ValueError unless two sets of leaves have the same names, dtypes and shapes; names the first other one."""
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


def _checkpointer() -> ocp.Checkpointer:
    items = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**items))


def whole(leaf: Any) -> np.ndarray:
    """Returns all of a leaf in host memory; the processes of a run that share the leaf must ask for it together."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def _about(progress: Progress, config: Config, leaves: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "epoch": progress.epoch,
        "batch": progress.batch,
        "seconds": progress.seconds,
        "key": jax.random.key_data(progress.key).tolist(),
        "records": list(progress.records),
        "pending": {name: values.tolist() for name, values in progress.pending.items()},
        "config": as_json(config),
        "leaves": {name: _kind(leaf) for name, leaf in leaves.items()},
        "checksums": {name: checksum(leaf) for name, leaf in leaves.items()},
    }


def _progress(about: Mapping[str, Any], leaves: Mapping[str, Any], like: bsojax.TrainState) -> Progress:
    return Progress(
        state=state_of(leaves, like),
        key=jax.random.wrap_key_data(jnp.array(about["key"], jnp.uint32)),
        epoch=about["epoch"],
        batch=about["batch"],
        records=tuple(about["records"]),
        pending={name: np.array(values, np.float64) for name, values in about["pending"].items()},
        seconds=about["seconds"],
    )


def _sealed(about: Mapping[str, Any]) -> dict[str, Any]:
    content = json.dumps(about)
    return {"content": content, "checksum": zlib.crc32(content.encode())}


def _unsealed(sealed: Mapping[str, Any]) -> dict[str, Any]:
    if zlib.crc32(sealed["content"].encode()) != sealed["checksum"]:
        raise ValueError("its description does not hold what was saved: its checksum differs")
    return json.loads(sealed["content"])


def _name(batches: int, records: int) -> str:
    return f"{batches:09d}-{records:05d}"


def _kind(leaf: Any) -> list[Any]:
    return [np.dtype(leaf.dtype).name, list(leaf.shape)]


def _shown(kind: Any) -> str:
    return f"{kind[0]}{list(kind[1])}"


def _bytes(leaf: Any) -> int:
    return (leaf.size + 7) // 8


def _written(path: Path, items: Any) -> None:
    with _checkpointer() as checkpointer:
        checkpointer.save(path, items)


def _attempted(action: Callable[[], Any]) -> tuple[Any, str]:
    """Returns what an action of Orbax gives, and the reason if it fails: whatever it raises has no class of its own.

    Holds back what Orbax logs of an error that it raises too, and what Python says of its unfinished tasks.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_news)  # stays: a thread or task may fail after the one that was raised
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    result, reason = None, ""
    try:
        try:
            result = action()
        except Exception as error:
            reason = _reason(error)
        if reason:
            gc.collect()  # unfinished tasks are noticed when they are collected
    finally:
        sys.unraisablehook = hook
    return result, reason


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record is not of one of Orbax's threads and tasks that failed beside the one that was raised."""
    text = record.getMessage()
    return "exception was never retrieved" not in text and "_SignalingThread.run() raised an exception" not in text


def _reason(error: BaseException) -> str:
    """Returns the first line of an error's cause: what Orbax says itself is long, and the same for all."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
