"""When a training is saved: at the latest after so many minutes, and when it is asked to stop."""

import signal

import pytest

from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop, Stopped


class Noted:
    def __init__(self):
        self.saved = []

    def save(self, progress):
        self.saved.append(progress)


def test_a_training_is_due_after_its_minutes_and_then_counts_anew():
    now, store = [100.0], Noted()
    keeper = CheckpointKeeper(store, 2.0, Stop(), clock=lambda: now[0])
    for at, due in ((100, False), (219, False), (220, True), (1000, True)):
        now[0] = at
        assert keeper.due() == due
    keeper.save("here")
    assert store.saved == ["here"]
    now[0] = 1119
    assert not keeper.due()
    now[0] = 1120
    assert keeper.due()


def test_a_signal_makes_it_due_at_once_and_ends_it_once_it_is_saved():
    stop, store = Stop(), Noted()
    keeper = CheckpointKeeper(store, 1e6, stop)
    keeper.wait()
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        assert keeper.due()
        with pytest.raises(Stopped):
            keeper.save("here")
        assert store.saved == ["here"]
        with pytest.raises(Stopped):
            keeper.wait()
    assert stop.status == 143
