"""Recordings of unequal length through a whole run: the command line, and both ways through an epoch with a mask."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_builders import wav, write
from test_epochs import Stream, assert_same_bits, copied

import bsojax
from experiments.build import prepare as built
from experiments.configs import CONFIGS
from experiments.data import load
from experiments.data.preparing import prepare
from experiments.epochs import BatchByBatch, OnDevice
from experiments.evaluation import evaluate
from experiments.front_ends import FrontEnd
from experiments.train import main

pytestmark = [pytest.mark.optimised, pytest.mark.slow]  # many programs are compiled

SMALL = {"channels": (16,), "batch_size": 20, "epochs": 1}


@pytest.fixture(scope="module")
def folder(made_once):
    """The set prepared of 100 recordings for training and 50 for the test, of 0.1 to 0.9 seconds."""

    def fill(folder):
        rng = np.random.default_rng(0)
        clips = {}
        for digit, number in itertools.product(range(10), range(15)):
            time = np.arange(int(rng.integers(800, 7200))) / 8000
            clips[f"{digit}_ann_{number}.wav"] = wav((8000 * np.sin(1256 * 1.3**digit * time)).astype(np.int16))
        prepare("fsdd_sequence", folder / "data", write(folder / "source", clips), quiet=True)

    return made_once("spoken-sequences", fill) / "data"


@pytest.fixture(scope="module")
def run(folder):
    config = dataclasses.replace(CONFIGS["spoken-digits-sequence"][1], **SMALL)
    return built(config, load("fsdd_sequence", folder, config.num_steps))


def test_each_recording_is_as_long_as_it_lasts(run):
    data = run.data
    assert (len(data.train), len(data.test)) == (100, 50)
    seen = data.front_end.evaluate(data.train.x)
    lengths = np.asarray(seen.mask).sum(0)
    assert seen.x.shape == (32, 100, 32)
    assert run.frame.shape == (20, 32)
    assert 3 <= lengths.min() <= 8 < 24 <= lengths.max() <= 30  # 1 + 250 n frames of n samples / 8000


def test_both_ways_through_an_epoch_carry_the_mask_to_the_same_bits(run):
    stream = built(run.config, dataclasses.replace(run.data, train=Stream(run.data.train)))
    assert isinstance(run.epochs, OnDevice)
    assert isinstance(stream.epochs, BatchByBatch)
    key, states, records = jax.random.key(7), [], []
    for each in (run, stream):
        state, fetch = each.epochs.start(key)(copied(run.state), 0, each.batches)
        states.append(state)
        records.append(fetch())
    assert_same_bits(*states)
    assert_same_bits(*records)
    assert records[0]["flips"].sum() > 0
    assert records[0]["skipped"].sum() == 0


def test_what_lies_behind_a_recording_changes_neither_training_nor_evaluation(run):
    """Padding of other values: a mask that got lost on the way would be seen."""

    def spoilt(seen):
        return dataclasses.replace(seen, x=jnp.where(seen.mask[..., None], seen.x, 50.0))

    plain = run.data.front_end
    front_end = FrontEnd(lambda key, x: spoilt(plain.train(key, x)), lambda x: spoilt(plain.evaluate(x)))
    other = built(run.config, dataclasses.replace(run.data, front_end=front_end))
    batch = run.data.train.x[:20], run.data.train.y[:20]
    states = [each.step(copied(run.state), jax.random.key(1), *batch)[0] for each in (run, other)]
    assert_same_bits(states[0].signs, states[1].signs)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-5), states[0].params, states[1].params)
    told = [evaluate(each, state, run.data.test) for each, state in zip((run, other), states, strict=True)]
    assert told[0] == pytest.approx(told[1], rel=1e-5)


def test_the_command_trains_a_recurrent_network(folder, tmp_path, monkeypatch):
    summary, config = CONFIGS["spoken-digits-sequence"]
    monkeypatch.setitem(CONFIGS, "spoken-digits-sequence", (summary, dataclasses.replace(config, **SMALL)))
    output = tmp_path / "run"
    main(["spoken-digits-sequence", "--network", "rnn", "--data-dir", str(folder), "--output", str(output)])
    record = json.loads((output / "metrics.jsonl").read_text())
    assert record["flips"] > 0
    assert record["skipped"] == 0
    assert 0 <= record["eval_accuracy"] <= 1
    assert set(json.loads((output / "summary.json").read_text())["results"]) == {"T-BSO, calibrated", "frozen control"}


def test_a_sequence_is_told_from_a_static_frame_by_where_its_batch_is(run):
    """Features have three axes as a sequence: a rule that counts axes would take time for the batch."""
    plain = run.data.front_end
    padded = FrontEnd(lambda key, x: plain.evaluate(x).x, lambda x: plain.evaluate(x).x)
    flat = FrontEnd(lambda key, x: x.reshape(len(x), -1), lambda x: x.reshape(len(x), -1))
    frames = [built(run.config, dataclasses.replace(run.data, front_end=each)).frame for each in (padded, flat)]
    assert [frame.shape for frame in frames] == [(20, 32), (20, 32 * 33)]


def test_a_recurrent_network_keeps_statistics_of_each_time_step():
    rng = np.random.default_rng(0)
    norm = bsojax.BatchNorm
    model = bsojax.models.SpikingRNN(features=(8,), num_classes=3, norm=lambda name: norm(num_steps=4, name=name))
    x, y = rng.random((4, 6, 5), np.float32), np.arange(6) % 3
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 4, b1=0.5), optax.sgd(0.1))
    state = bsojax.init(model, tx, jax.random.key(0), x[0])
    state, metrics = bsojax.make_train_step(model, tx, 4)(state, x, y)
    means = [leaf for leaf in jax.tree.leaves(state.batch_stats) if leaf.shape == (4, 8)]
    assert metrics["skipped"] == 0
    assert means
    assert all(not np.allclose(leaf[0], leaf[-1]) for leaf in means)
