"""A request to stop: SIGTERM and Ctrl-C are noted, so that the run can save first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """Raised when a run ends because it was asked to."""

    def __init__(self) -> None:
        super().__init__("stopped on request")


class Stop:
    """Notes the signals that ask a run to stop.

    Attributes:
      signal: the first that came; None: none yet.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def status(self) -> int:
        """The exit status of a process that stopped on request: 128 plus the signal, so 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGTERM)

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Notes signals within the context; a second one of the same kind has its usual effect and ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python delivers signals only to the main thread
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, frame: FrameType | None) -> None:
            del frame
            self.signal = self.signal or signal.Signals(number)
            signal.signal(number, before[signal.Signals(number)])

        for number in SIGNALS:
            signal.signal(number, note)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
