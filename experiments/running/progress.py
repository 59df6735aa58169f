"""Where a training stands: all that decides how it goes on, and the records of what it has done."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

import bsojax
from experiments import rules
from experiments.config import Config
from experiments.epochs import Chunk


@dataclasses.dataclass(frozen=True)
class Progress:
    """A training between two chunks.

    Attributes:
      state: the state of the training.
      key: the key from which the keys of all epochs are folded.
      epoch: the epoch, counted from 1, to which the next batch belongs.
      batch: batches of it that are done.
      records: the records so far, one an evaluation.
      pending: what was recorded of each batch since the last record (see Chunk.batches).
      seconds: time spent on those.
    """

    state: bsojax.TrainState
    key: jax.Array
    epoch: int = 1
    batch: int = 0
    records: tuple[dict[str, Any], ...] = ()
    pending: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


def joined(pending: dict[str, np.ndarray], chunks: Iterable[Chunk]) -> dict[str, np.ndarray]:
    """Returns what was recorded of each batch, of those pending and of chunks after them."""
    parts = [part for part in (pending, *(chunk.batches for chunk in chunks)) if part]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def record_of(config: Config, num_signs: int, batches: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the part of a record that tells of training: means over the batches, of the losses that are finite."""
    good = np.isfinite(batches["loss"])
    flips = float(np.mean(batches["flips"]))
    return {
        "loss": float(np.mean(batches["loss"][good])) if good.any() else math.nan,
        "accuracy": float(np.mean(batches["accuracy"])),
        "flips": int(batches["flips"].sum()),
        "flips_per_batch": flips,
        "flip_ratio": flips / (num_signs * rules.updates_per_batch(config)),
        "spike_rate": float(np.mean(batches["spike_rate"])),
        "skipped": int(batches["skipped"].sum()),
    }


class Streak:
    """Counts batches in a row in which an update was skipped.

    Attributes:
      length: how many, up to the last batch.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self.length = 0

    def watch(self, chunk: Chunk) -> None:
        """Takes in the batches of a chunk.

        Raises:
          FloatingPointError: there are too many.
        """
        for skipped in chunk.batches["skipped"]:
            self.length = self.length + 1 if skipped else 0
            if self.length >= self._longest:
                raise FloatingPointError(
                    f"epoch {chunk.epoch}: {self.length} batches in a row had updates that were skipped, because the "
                    "loss or a gradient was not finite (--max-skipped); lower --learning-rate, or look for broken "
                    "inputs."
                )
