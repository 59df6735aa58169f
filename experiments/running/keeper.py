"""When a training is saved: after each evaluation, every few minutes, and when it is asked to stop."""

import time
from collections.abc import Callable

from experiments.running.checkpoints import Checkpoints
from experiments.running.devices import agreed
from experiments.running.progress import Progress
from experiments.running.stop import Stop, Stopped


class CheckpointKeeper:
    """Keeps a training safe (see loop.Keeper).

    Args:
      checkpoints: where it is saved.
      minutes: how long a training may go on without being saved.
      stop: the request to stop.
      clock: seconds, for tests.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
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
