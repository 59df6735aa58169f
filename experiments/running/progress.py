"""Where a training stands: all that decides how it goes on, and the records of what it has done."""

import dataclasses
from typing import Any

import jax
import numpy as np

import bsojax
from experiments.epochs import Chunk, Running


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

    def after(self, state: bsojax.TrainState, batch: int, running: Running) -> "Progress":
        """Returns where the training stands after so many batches of the epoch, when what is running is done."""
        parts = [part for part in (self.pending, *(chunk.batches for chunk in running.finish())) if part]
        pending = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        seconds = self.seconds + running.seconds
        return dataclasses.replace(self, state=state, batch=batch, pending=pending, seconds=seconds)

    def recorded(self, state: bsojax.TrainState, record: dict[str, Any], batches: int) -> "Progress":
        """Returns where the training stands after an evaluation, with its record; the epoch has so many batches."""
        whole = self.batch == batches
        return Progress(state, self.key, self.epoch + whole, 0 if whole else self.batch, (*self.records, record))


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
