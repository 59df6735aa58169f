"""Sequences of unequal length, from the files of public sets to a trained network."""

import dataclasses
import functools
import sys

import chex
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely

import bsojax
from experiments import build, evaluation
from experiments.build import prepare as built
from experiments.configs import CONFIGS
from experiments.data import DataSet, MemorySplit, load
from experiments.data.sequences import spike_counts
from experiments.evaluation import evaluate, refreshed
from experiments.front_ends import sequences

rng = np.random.default_rng(0)


def write_h5(path, labels, seconds=0.3, first=None):
    """A file in the layout of Spiking Heidelberg Digits: ragged times [s] and units, labels, speakers."""
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (len(labels),), h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (len(labels),), h5py.vlen_dtype(np.uint16))
        for index, label in enumerate(labels):
            count = int(rng.integers(20, 60))
            sorted_times = np.sort(rng.random(count) * seconds * (1 + index % 3)).astype(np.float16)
            sorted_times[0] = sorted_times[0] if first is None else first
            times[index] = sorted_times
            units[index] = (label * 30 + rng.integers(0, 30, count)) % 700
        file["labels"] = np.asarray(labels, np.uint16)
        file["extra/speaker"] = np.zeros(len(labels), np.uint16)
        file["extra/keys"] = np.array([str(label).encode() for label in range(20)])


def shortened(path, name):
    with h5py.File(path, "a") as file:
        values = np.asarray(file[name])[:-1]
        del file[name]
        file[name] = values


def with_spikes(path, times, units):
    """Gives the recording 3 other spikes."""
    with h5py.File(path, "a") as file:
        for name, values in (("spikes/times", times), ("spikes/units", units)):
            file[name][3] = np.asarray(values, file[name].dtype.metadata["vlen"])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from experiments.data.preparing import prepare

    folder = tmp_path_factory.mktemp("shd")
    source = folder / "source"
    source.mkdir()
    write_h5(source / "shd_train.h5", [*range(20)] * 3)
    write_h5(source / "shd_test.h5", range(20))
    prepare("shd", folder / "data", source, quiet=True)
    return source, folder / "data"


def test_heidelberg_digits_hold_the_spikes_of_their_files(prepared):
    source, folder = prepared
    data = load("shd", folder, num_steps=50)
    assert (len(data.train), len(data.test), data.num_classes) == (60, 20, 20)
    with h5py.File(source / "shd_test.h5") as file:
        order = [np.flatnonzero(np.asarray(data.test.y) == label)[0] for label in range(20)]
        for label, index in enumerate(order):
            times, units = file["spikes/times"][label], file["spikes/units"][label]
            bins = np.round(times.astype(np.float64) * 1e6).astype(int) // 10_000
            want = np.zeros((50, 140), int)
            for at, unit in zip(bins, units, strict=True):
                if at < 50:
                    want[at, unit // 5] += 1
            np.testing.assert_array_equal(data.test.x[index, :, :-1], want)
            np.testing.assert_array_equal(data.test.x[index, :, -1], np.arange(50) <= min(bins.max(), 49))
    padded = data.front_end.evaluate(data.test.x)
    assert padded.x.shape == (50, 20, 140)
    lengths = np.asarray(padded.mask).sum(0)
    assert lengths.min() < lengths.max()


def test_speech_commands_are_read_from_their_three_files(tmp_path):
    from experiments.data.preparing import prepare

    for part, times in (("train", 2), ("valid", 1), ("test", 1)):
        write_h5(tmp_path / f"ssc_{part}.h5", [*range(35)] * times)
    prepare("ssc", tmp_path / "data", tmp_path, quiet=True)
    data = load("ssc", tmp_path / "data", num_steps=100)
    assert (len(data.train), len(data.test), data.num_classes) == (70, 35, 35)
    assert data.test.x.shape == (35, 100, 141)
    assert sorted(np.asarray(data.test.y)) == list(range(35))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda path: path.unlink(), "source: there is no .*shd_train.h5; unpack"),
        (lambda path: path.write_bytes(b"junk"), "cannot be read as spikes/times"),
        (lambda path: write_h5(path, [*range(19), 20]), "labels are not in 0 .. 19"),
        (lambda path: write_h5(path, range(5)), "holds nothing for the train split of 10"),
        (lambda path: write_h5(path, range(20), first=-0.01), "the time of a spike is not in 0 .. 60 seconds"),
        (lambda path: write_h5(path, range(20), first=np.nan), "the time of a spike is not in 0 .. 60 seconds"),
        (lambda path: write_h5(path, range(20), first=400.0), "the time of a spike is not in 0 .. 60 seconds"),
        (lambda path: shortened(path, "labels"), "times, units and labels are not of the same recordings"),
        (lambda path: with_spikes(path, [0.1, 0.2], [1]), "times, units and labels are not of the same recordings"),
        (lambda path: with_spikes(path, [0.1], [700]), "a spike is of none of 700 units"),
    ],
)
def test_files_of_another_kind_are_told(change, match, tmp_path):
    from experiments.data.preparing import prepare

    for part in ("train", "test"):
        write_h5(tmp_path / f"shd_{part}.h5", range(20))
    change(tmp_path / "shd_train.h5")
    with pytest.raises(ValueError, match=match):
        prepare("shd", tmp_path / "data", tmp_path, quiet=True)


def test_a_missing_reader_of_hdf5_says_how_to_get_it(tmp_path, monkeypatch):
    from experiments.data.preparing import prepare

    for part in ("train", "test"):
        write_h5(tmp_path / f"shd_{part}.h5", range(20))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'bsojax\[hdf5\]'"):
        prepare("shd", tmp_path / "data", tmp_path, quiet=True)


def test_spikes_are_binned_as_one_by_one():
    events = np.array([[0, 0, 0, 0], [9_999, 4, 0, 0], [10_000, 5, 0, 0], [35_000, 699, 0, 0]], np.int32)
    stored = spike_counts(700, 5, 10_000)([{"events": events}, {"events": events[:0]}], 3)
    assert stored.shape == (2, 3, 141)
    assert stored[0, 0, 0] == 2
    assert stored[0, 1, 1] == 1
    assert stored[0, :, :-1].sum() == 3  # the last spike comes after three frames
    np.testing.assert_array_equal(stored[:, :, -1], [[1, 1, 1], [1, 0, 0]])


def test_padding_does_not_count_in_standardised_spectra():
    stored = rng.standard_normal((3, 6, 4)).astype(np.float32)
    lengths = np.array([6, 2, 4])
    stored[..., -1] = np.arange(6) < lengths[:, None]
    seen = sequences.standardised().evaluate(stored)
    for index, length in enumerate(lengths):
        there = stored[index, :length, :-1]
        want = (there - there.mean()) / there.std()
        np.testing.assert_allclose(seen.x[:length, index], want, rtol=1e-4, atol=1e-5)
        assert not seen.x[length:, index].any()
    np.testing.assert_array_equal(np.sum(seen.mask, 0), lengths)


def config_of(**changes):
    _, config = CONFIGS["shd-recurrent"]
    small = {"channels": (16,), "num_steps": 50, "batch_size": 20, "epochs": 1}
    return dataclasses.replace(config, **{**small, **changes})


def test_the_config_trains_with_its_mask(prepared):
    _, folder = prepared
    config = config_of()
    data = load("shd", folder, config.num_steps)
    run = built(config, data)
    assert run.frame.shape == (20, 140)
    x, y = data.train.x[:20], data.train.y[:20]
    before = jax.tree.map(np.asarray, run.state)
    state, metrics = run.step(run.state, jax.random.key(0), x, y)
    seen = data.front_end.evaluate(x)
    # The same through the library, with more padding than there is: the mask is what counts.
    longer = jax.tree.map(lambda leaf: np.pad(leaf, [(0, 10)] + [(0, 0)] * (leaf.ndim - 1)), seen)
    assert np.isfinite(metrics["loss"])
    assert longer.mask.sum() == seen.mask.sum() < seen.mask.size
    tx = build.make_optimizer(config, build.count_updates(config, data))
    want, _ = bsojax.make_train_step(run.model, tx, config.num_steps)(
        jax.tree.map(jnp.asarray, before), seen.x, y, mask=seen.mask
    )
    chex.assert_trees_all_equal(state.signs, want.signs)
    fresh = refreshed(run, state)
    told = evaluate(run, fresh, data.test)
    test = data.front_end.evaluate(data.test.x)
    judged = bsojax.make_eval_step(run.model, config.num_steps)(fresh, test.x, data.test.y, mask=test.mask)
    np.testing.assert_allclose(told["accuracy"], judged["accuracy"], rtol=1e-6)
    with pytest.raises(ValueError, match="--optimizer: 'bptt-adam' does not accept padded sequences"):
        built(config_of(optimizer="bptt-adam"), data)


@pytest.mark.parametrize("batch_size", [4, *rarely(350)])
def test_schedules_end_with_the_last_example_of_each_batch(batch_size):
    lengths = np.arange(400) % 8 + 1
    stored = np.zeros((400, 8, 4), np.float32)
    stored[..., -1] = np.arange(8) < lengths[:, None]
    splits = MemorySplit(stored, lengths % 3), MemorySplit(stored[:8], lengths[:8] % 3)
    data = DataSet("synthetic", *splits, 3, sequences.counts())
    config = config_of(num_steps=8, batch_size=batch_size, channels=(4,), epochs=2)
    run = built(config, data)
    expected = build.count_updates(config, data) / (2 * run.batches)
    drawn = [lengths[rng.choice(400, batch_size, replace=False)].max() for _ in range(4000)]
    assert expected == pytest.approx(np.mean(drawn), abs=0.1)
    # The calls of the optimizer in an epoch, as its state counts them.
    state = run.epochs.start(jax.random.key(1))(run.state, 0, run.batches)[0]
    (updates,) = {int(count) for _, count in optax.tree.get_all_with_path(state.opt_state, "count")}
    assert updates == pytest.approx(run.batches * expected, rel=0.05)
    assert expected == 8 if batch_size == 350 else expected < 8 * 0.95


@pytest.mark.slow
def test_the_weight_of_an_evaluation_batch_is_what_counts_of_it(prepared, monkeypatch):
    _, folder = prepared
    data = load("shd", folder, 50)
    x = np.array(data.test.x)
    x[15:] = 0  # padding alone
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 12)
    run = built(config_of(), dataclasses.replace(data, test=MemorySplit(x, data.test.y)))
    told = evaluate(run, run.state, run.data.test)
    alone = evaluate(run, run.state, data.test.take(np.arange(15)))
    assert told == pytest.approx(alone, rel=1e-5)
    assert np.isnan(evaluate(run, run.state, MemorySplit(x[15:], data.test.y[15:]))["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_a_recurrent_network_in_memory_that_does_not_grow(packed):
    model = bsojax.models.SpikingRNN(features=(12, 8), num_classes=3)
    x, y = rng.random((6, 5), np.float32), np.arange(6) % 3
    used = []
    for steps in (2, 24):
        tx = bsojax.split_optimizer(bsojax.t_bso(0.1, steps, b1=0.5), optax.sgd(0.1))
        state = bsojax.init(model, tx, jax.random.key(0), x, packed=packed)
        step = bsojax.make_train_step(model, tx, steps)
        used.append(step.lower(state, x, y).compile().memory_analysis().temp_size_in_bytes)
        state, metrics = step(state, x, y)
        assert metrics["skipped"] == 0
        recurrent = {f"recurrent_{index}/recurrent/kernel" for index in range(2)}
        assert set(metrics["flips"]) == {"dense_1/kernel", *recurrent}
    assert abs(used[1] - used[0]) <= 1024  # T-BSO's own scalars
    binary = bsojax.summarize(model.clone(binary_ends=True), x).binary_weights
    assert binary == 5 * 12 + 12 * 12 + 12 * 8 + 8 * 8 + 8 * 3


def test_every_sequence_set_has_its_config():
    named = {config.dataset for _, config in CONFIGS.values()}
    assert {"fsdd_sequence", "shd", "ssc"} <= named
    assert functools.reduce(lambda found, pair: found or pair[1].network == "rnn", CONFIGS.values(), False)
