"""When a training is saved: after each evaluation, every few minutes, and when it is asked to stop."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from experiments.running.devices import agreed
from experiments.running.progress import Progress
from experiments.running.stop import Stop, Stopped


class Keeper(Protocol):
    """What keeps a training safe while it goes on; all processes of a run ask theirs at the same places."""

    def due(self) -> bool:
        """Whether the training shall be saved here, between two chunks."""

    def save(self, progress: Progress) -> None:
        """Saves; raises where the training shall end after that."""

    def wait(self) -> None:
        """Called between the batches of an evaluation; raises where the training shall end without it."""


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
      minutes: how long a training may go on without being saved.
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
