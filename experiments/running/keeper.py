"""When a training is saved: after each evaluation, every few minutes, and when asked to stop; and when it is not."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from experiments.epochs import Chunk
from experiments.running.devices import agreed
from experiments.running.progress import Progress
from experiments.running.stop import Stop, Stopped


class Keeper(Protocol):
    """Keeps a training safe while it runs; all processes of a run call theirs at the same points."""

    def due(self) -> bool:
        """Whether to save the training here, between two chunks."""

    def save(self, progress: Progress) -> None:
        """Saves; raises if the training is to end after that."""

    def wait(self) -> None:
        """Called between the batches of an evaluation; raises if the training is to end without it."""


class NoKeeper:
    """Keeps nothing."""

    def due(self) -> bool:
        return False

    def save(self, progress: Progress) -> None:
        del progress

    def wait(self) -> None:
        pass


NO_KEEPER = NoKeeper()


class Store(Protocol):
    """Where a training is saved, as Checkpoints are."""

    def save(self, progress: Progress) -> Any:
        """Saves a training."""


class CheckpointKeeper:
    """Keeps a training safe by checkpoints.

    Args:
      checkpoints: where it is saved.
      minutes: how long a training may run without being saved.
      stop: the request to stop.
      clock: seconds, for tests.
    """

    def __init__(
        self,
        checkpoints: Store,
        minutes: float,
        stop: Stop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checkpoints, self._seconds, self._stop, self._clock = checkpoints, 60 * minutes, stop, clock
        self._agreed = agreed()
        self._saved = clock()

    def due(self) -> bool:
        late = self._clock() - self._saved >= self._seconds
        return self._agreed(late or self._stop.signal is not None)

    def save(self, progress: Progress) -> None:
        self._checkpoints.save(progress)
        self._saved = self._clock()
        self.wait()

    def wait(self) -> None:
        if self._agreed(self._stop.signal is not None):
            raise Stopped


class Guard:
    """Keeps updates that were skipped because a value was not finite from spoiling the checkpoints.

    Nothing is saved right after a batch with a skipped update, and a training that makes no progress ends.

    Args:
      keeper: what saves the training.
      longest: this many consecutive batches with a skipped update end the training.
      on_chunk: called with every chunk.
    """

    def __init__(self, keeper: Keeper, longest: int, on_chunk: Callable[[Chunk], None]) -> None:
        self._keeper, self._longest, self._on_chunk = keeper, longest, on_chunk
        self._streak = 0
        self.due = keeper.due

    def watch(self, chunk: Chunk) -> None:
        """Counts the batches of a chunk.

        Raises:
          FloatingPointError: too many in a row had a skipped update.
        """
        for skipped in chunk.batches["skipped"]:
            self._streak = self._streak + 1 if skipped else 0
            if self._streak >= self._longest:
                raise FloatingPointError(
                    f"epoch {chunk.epoch}: {self._streak} batches in a row had updates that were skipped, because the "
                    "loss or a gradient was not finite (--max-skipped); lower --learning-rate, or look for broken "
                    "inputs."
                )
        self._on_chunk(chunk)

    def check(self, epoch: int, record: dict[str, Any]) -> None:
        """Raises FloatingPointError if no batch of a record had a finite loss."""
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                f"epoch {epoch}: no batch had a finite loss ({record['skipped']} updates were skipped); lower "
                "--learning-rate, or look for broken inputs."
            )

    def save(self, progress: Progress) -> None:
        """Saves, unless the last batch had a skipped update; raises if the training is to end after that."""
        if self._streak:
            self._keeper.wait()
        else:
            self._keeper.save(progress)

    def wait(self, progress: Progress) -> None:
        """Called between the batches of an evaluation; if the training is to end, saves it and raises."""
        try:
            self._keeper.wait()
        except Stopped:
            self.save(progress)
            raise
