"""Checkpoints of a training: written whole or not at all, and restored only if every leaf is what was saved."""

import functools
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import bsojax
from experiments.config import Config, as_json
from experiments.running.devices import agreed, is_first, wait_for_all
from experiments.running.orbax import attempted, checkpointer
from experiments.running.progress import Progress
from experiments.running.stored import checksum, compare, kind_of, state_of, stored_leaves, stored_shapes

DAMAGED = "damaged-"
"""Prefix of the name of a checkpoint that could not be restored: it is set aside, not deleted."""

DELETED = "deleted-"
"""Prefix of the name of a checkpoint while it is being deleted."""


class Checkpoints:
    """The checkpoints of a training, each a folder ``BATCHES-RECORDS`` named by what was done when it was written.

    A checkpoint holds the leaves of the state, signs at one bit each, and as JSON the position in the data, the
    random key, the records, the config, and the dtype, shape and checksum of every leaf. Orbax first writes it under
    another name, so that an unfinished one is never taken for a checkpoint.

    Args:
      folder: their folder; remains of killed processes are removed.
      config: the config of the run.
      batches: batches per epoch.
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
          OSError: it could not be written, for example on a full disk; earlier checkpoints are untouched.
        """
        name = _name((progress.epoch - 1) * self._batches + progress.batch, len(progress.records))
        if name in self.names():
            return name
        leaves = stored_leaves(progress.state)
        about = _sealed(_about(progress, self._config, leaves))
        arrays = {key: leaf for key, leaf in leaves.items() if leaf.size}  # Orbax refuses empty arrays
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), about=ocp.args.JsonSave(about))
        _, reason = attempted(lambda: _written(self.path(name), items))
        if reason:
            self._clear()
            raise OSError(f"{self.path(name)}: the checkpoint could not be written ({reason}).")
        if is_first():
            self._delete(progress.records)
        return name

    def restore(self, like: bsojax.TrainState) -> tuple[Progress | None, dict[str, str]]:
        """Returns the newest good checkpoint, and by name why newer ones are bad; None: there is no checkpoint yet.

        Those that are not good are set aside under other names.

        Args:
          like: a fresh state of the same config, whose leaves are placed as the restored ones should be.

        Raises:
          ValueError: there are checkpoints, but none is good.
        """
        skipped: dict[str, str] = {}
        for name in reversed(self.names()):
            found, reason = attempted(functools.partial(self._read, name, like))
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
        """Reads a checkpoint; raises unless its leaves have the names, dtypes and shapes of those of a state."""
        wanted = stored_shapes(like)
        with checkpointer() as opened:
            items = ocp.args.Composite(about=ocp.args.JsonRestore())
            about = _unsealed(opened.restore(self.path(name), items)["about"])
            compare({key: kind_of(leaf) for key, leaf in wanted.items()}, about["leaves"])
            wanted = {key: leaf for key, leaf in wanted.items() if leaf.size}
            stored = opened.metadata(self.path(name)).item_metadata["state"].tree
            compare({key: kind_of(leaf) for key, leaf in wanted.items()}, {key: kind_of(stored[key]) for key in stored})
            items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
            return about, opened.restore(self.path(name), items)["state"]

    def _set_aside(self, names: Mapping[str, str]) -> None:
        if is_first():
            for name in names:
                shutil.rmtree(self.path(DAMAGED + name), ignore_errors=True)
                self.path(name).rename(self.path(DAMAGED + name))
        wait_for_all("damaged checkpoints were set aside")

    def _delete(self, records: tuple[dict[str, Any], ...]) -> None:
        """Deletes all but the newest checkpoints and, if evaluations are on validation data, the best."""
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


def _about(progress: Progress, config: Config, leaves: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "epoch": progress.epoch,
        "batch": progress.batch,
        "seconds": progress.seconds,
        "key": jax.random.key_data(progress.key).tolist(),
        "records": list(progress.records),
        "pending": {name: values.tolist() for name, values in progress.pending.items()},
        "config": as_json(config),
        "leaves": {name: kind_of(leaf) for name, leaf in leaves.items()},
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


def _written(path: Path, items: Any) -> None:
    with checkpointer() as opened:
        opened.save(path, items)
