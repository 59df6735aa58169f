"""The state of a training: everything that decides how it continues, and the records of what it has done."""

import dataclasses
from typing import Any

import jax
import numpy as np

import bsojax
from experiments.epochs import Running


@dataclasses.dataclass(frozen=True)
class Progress:
    """A training between two chunks.

    Attributes:
      state: the state of the training.
      key: the key from which the keys of all epochs are folded.
      epoch: the epoch, counted from 1, to which the next batch belongs.
      batch: batches of it that are done.
      records: the records so far, one per evaluation.
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

    def after(self, state: bsojax.TrainState, batch: int, running: Running) -> "Progress":
        """Returns the progress after this many batches of the epoch, when running work is done."""
        parts = [part for part in (self.pending, *(chunk.batches for chunk in running.finish())) if part]
        pending = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        seconds = self.seconds + running.seconds
        return dataclasses.replace(self, state=state, batch=batch, pending=pending, seconds=seconds)

    def recorded(self, state: bsojax.TrainState, record: dict[str, Any], batches: int) -> "Progress":
        """Returns the progress after an evaluation, with its record; the epoch has this many batches."""
        whole = self.batch == batches
        return Progress(state, self.key, self.epoch + whole, 0 if whole else self.batch, (*self.records, record))
