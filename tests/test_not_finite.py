"""NaN and infinity in data, gradients and loss: skipped, counted, never saved after, and in the end refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import SMALL, changed, report

import bsojax
from bsojax.optim import all_finite
from experiments import train
from experiments.build import prepare
from experiments.configs import CONFIGS
from experiments.data import MemorySplit, load
from experiments.front_ends import FrontEnd
from experiments.running.checkpoints import Checkpoints
from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop

MARK = 10
"""A label that no example has, for those whose gradient is broken."""


UNCHECKED = FrontEnd(lambda key, x: x / 16, lambda x: x / 16)
"""A front end that takes floats, as stored images are not."""


def nothing(*_):
    pass


@pytest.fixture(scope="module")
def data(digits_dir):
    return load("digits", digits_dir)


@jax.custom_vjp
def broken_where_marked(logits, y):
    return bsojax.cross_entropy_mse()(logits, y)


def forward(logits, y):
    value, pull_back = jax.vjp(lambda logits: bsojax.cross_entropy_mse()(logits, y), logits)
    return value, (pull_back, y)


def backward(residuals, g):
    pull_back, y = residuals
    return pull_back(g)[0] * jnp.where(jnp.any(y == MARK), jnp.inf, 1.0), None


broken_where_marked.defvjp(forward, backward)


def with_nan(data, places):
    x = np.asarray(data.train.x, np.float32)
    x[places, 3, 3] = np.nan
    return dataclasses.replace(data, train=MemorySplit(x, data.train.y), front_end=UNCHECKED)


def with_infinity(data, places):
    x = np.asarray(data.train.x, np.float32)
    x[places] = np.inf
    return dataclasses.replace(data, train=MemorySplit(x, data.train.y), front_end=UNCHECKED)


def with_label(label, classes, data, places):
    y = np.array(data.train.y)
    y[places] = label
    return dataclasses.replace(data, train=MemorySplit(data.train.x, y), num_classes=classes)


all_faults = {
    "NaN in the data": with_nan,
    "infinity in the data": with_infinity,
    "NaN in the loss": functools.partial(with_label, 77, 10),
    "infinity in the gradients": functools.partial(with_label, MARK, 11),
}


def batch_of(run, example, epoch):
    """The batch of an epoch in which an example comes."""
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(run.config.seed), epoch))
    return int(np.flatnonzero(np.asarray(run.data.train.order(key)) == example)[0]) // run.config.batch_size


def kept(run, folder):
    store = Checkpoints(folder, run.config, run.batches)
    return store, CheckpointKeeper(store, 0.0, Stop())


# All but one are left to the slow tests: each one compiles a run of its own.
each_fault = pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow if index else ()) for index, fault in enumerate(all_faults)]
)


@pytest.fixture
def small(data):
    """The small run's data alone, so that places in it are known."""
    return dataclasses.replace(data, train=data.train.take(np.arange(320)))


@each_fault
def test_what_is_not_finite_is_skipped_and_counted_and_nothing_is_saved_right_after(
    fault, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(bsojax, "make_train_step", functools.partial(bsojax.make_train_step, loss=broken_where_marked))
    broken = all_faults[fault](small, [17])
    run = prepare(changed(SMALL, evaluations=1), broken)
    bad = [batch_of(run, 17, 1), 10 + batch_of(run, 17, 2)]
    store, keeper = kept(run, tmp_path)
    chunks = []
    state, records = train.train(run, chunks.append, nothing, None, keeper)
    skipped = np.concatenate([chunk.batches["skipped"] for chunk in chunks])
    assert list(np.flatnonzero(skipped)) == bad
    assert [record["skipped"] for record in records] == [2, 2]  # both time steps of a batch
    assert all(np.isfinite(record["loss"]) for record in records)
    assert int(state.skipped) == 4
    assert all_finite(state)
    saved = {int(name.partition("-")[0]) for name in store.names()}
    assert saved == set(range(21)) - {place + 1 for place in bad}
    report(fault, "skipped, counted; nothing saved right after", 2, 2)


@pytest.mark.slow
@each_fault
def test_too_many_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(fault, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bsojax, "make_train_step", functools.partial(bsojax.make_train_step, loss=broken_where_marked))
    order = prepare(changed(SMALL, evaluations=1), small)
    # One example of each of three batches in a row in the second epoch, which lie apart in the first.
    homes = {(batch_of(order, example, 2), batch_of(order, example, 1)): example for example in range(320)}
    places = [homes[pair] for pair in ((4, 1), (5, 4), (6, 7))]
    monkeypatch.setattr(train, "load", lambda *_: all_faults[fault](small, places))
    monkeypatch.setitem(CONFIGS, "small", ("The small run.", changed(SMALL, evaluations=1)))
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        train.main(["small", "--output", str(folder)])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert "error: epoch 2: 3 batches in a row had updates that were skipped" in error
    assert f"The last good checkpoint is {folder / 'checkpoints' / '000000014-00001'}; resume with --resume" in error
    assert not (folder / "summary.json").exists()
    report(fault + ", three batches in a row", "stops, names the last good checkpoint", 1, 1, 3)
