"""A process of a run on several, as tests start it: trains the small run ten steps and writes down what came out."""

import dataclasses
import pickle
import sys
from pathlib import Path

import jax
import numpy as np
import optax
from faults import SMALL, changed, without_times

import bsojax
from experiments.build import prepare
from experiments.config import Session
from experiments.data import MemorySplit, StreamSplit, load
from experiments.loop import train
from experiments.running.checkpoints import Checkpoints
from experiments.running.devices import start_processes
from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop
from experiments.running.stored import stored_leaves, whole


class Files:
    """A source of the examples of a split, that counts what is read of it."""

    def __init__(self, split: MemorySplit):
        self.x, self.y = np.asarray(split.x), np.asarray(split.y)
        self.reads = 0

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        self.reads += 1
        return {"image": self.x[index].tobytes(), "label": int(self.y[index])}

    def decode(self, image):
        return np.frombuffer(image, self.x.dtype).reshape(self.x.shape[1:])


def ten_steps(data_dir, folder, session, *, stream=False):
    """Returns the leaves of the state after ten steps, as they are stored, the records, and the examples read."""
    wide = changed(SMALL, channels=(64, 64, 64), epochs=1, evaluations=1)
    config = changed(wide, **{name: getattr(session, name) for name in ("devices", "split_optimizer")})
    data = load("digits", data_dir)
    files = Files(data.train.take(np.arange(config.train_examples)))
    if stream:
        data = dataclasses.replace(data, train=StreamSplit(files, files.decode, data.num_classes))
    run = prepare(config, data)
    files.reads = 0  # one was looked at
    keeper = CheckpointKeeper(Checkpoints(folder, config, run.batches), 1e6, Stop())
    state, records = train(run, lambda _: None, lambda _: None, None, keeper)
    return {
        "leaves": {name: whole(leaf) for name, leaf in stored_leaves(state).items()},
        "records": without_times(records),
        "devices": run.devices.count,
        "reads": files.reads,
    }


def direct_step():
    """Returns the metrics of a step called directly on arrays of which each process holds a part."""
    mesh, rng = bsojax.data_mesh(), np.random.default_rng(0)
    x, y = rng.random((8, 12)).astype(np.float32), (np.arange(8) % 3).astype(np.int32)
    model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 2), optax.sgd(0.1))
    state = bsojax.init(model, tx, jax.random.key(0), x)

    def placed(leaf, *axes):
        leaf, sharding = np.asarray(leaf), jax.NamedSharding(mesh, jax.P(*axes))
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: leaf[part])

    x, y = placed(x, "batch"), placed(y, "batch")
    assert x.is_fully_addressable == (jax.process_count() == 1)
    _, metrics = bsojax.make_train_step(model, tx, 2)(jax.tree.map(placed, state), x, y)
    return jax.tree.map(float, metrics)


if __name__ == "__main__":
    port, process, place = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    session = Session(
        coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=process, devices=None, split_optimizer=True
    )
    start_processes(session)
    for name, stream in (("memory", False), ("stream", True)):
        result = ten_steps(place / "data", place / f"checkpoints-{name}", session, stream=stream)
        (place / f"{name}-{process}.pickle").write_bytes(pickle.dumps(result))
    (place / f"direct-{process}.pickle").write_bytes(pickle.dumps(direct_step()))
