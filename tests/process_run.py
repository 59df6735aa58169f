"""A process of a run on several, as tests start it: trains the small run ten steps and writes down what came out."""

import pickle
import sys
from pathlib import Path

from faults import SMALL, changed, without_times

from experiments import loop
from experiments.checkpoints import Checkpoints, stored_leaves, whole
from experiments.config import Session
from experiments.data import load
from experiments.devices import start_processes
from experiments.keeper import CheckpointKeeper
from experiments.stop import Stop


def ten_steps(data_dir, folder, session, **settings):
    """Returns the leaves of the state after ten steps, as they are stored, and the records."""
    wide = changed(SMALL, channels=(64, 64, 64), epochs=1, evaluations=1, **settings)
    config = changed(wide, **{name: getattr(session, name) for name in ("devices", "split_optimizer")})
    run = loop.prepare(config, load("digits", data_dir))
    keeper = CheckpointKeeper(Checkpoints(folder, config, run.batches), 1e6, Stop())
    state, records = loop.train(run, lambda _: None, lambda _: None, None, keeper)
    return {
        "leaves": {name: whole(leaf) for name, leaf in stored_leaves(state).items()},
        "records": without_times(records),
        "devices": run.devices.count,
    }


if __name__ == "__main__":
    port, process, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    session = Session(
        coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=process, devices=None, split_optimizer=True
    )
    start_processes(session)
    result = ten_steps(place / "data", place / "checkpoints", session)
    (place / f"process-{process}.pickle").write_bytes(pickle.dumps(result))
