"""Epochs: the compiled program is the plain loop over batches bit for bit, however it is cut, and compiled once."""

import dataclasses
import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fast_and_slow import often
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import bsojax
from experiments import build, epochs
from experiments.build import prepare
from experiments.config import Config
from experiments.data import DataSet, MemorySplit, StreamSplit
from experiments.display import Bar
from experiments.epochs import BatchByBatch, Chunk, OnDevice, Running
from experiments.front_ends import audio, events, images
from experiments.loop import train

pytestmark = pytest.mark.optimised

STATIC = (12, 12, 1)
BASE = Config("synthetic", channels=(6, "M", 8), num_steps=2, batch_size=8, epochs=2, learning_rate=0.05)


def data_set(front_end, shape, train=45, dtype=np.uint8):
    """Random examples of four classes that can be told apart."""
    rng = np.random.default_rng(0)
    means = rng.uniform(0, 200, (4, *shape))

    def split(count):
        y = rng.integers(0, 4, count)
        return MemorySplit((means[y] + rng.uniform(0, 55, (count, *shape))).astype(dtype), y)

    return DataSet("synthetic", split(train), split(10), 4, front_end)


class Stream:
    """The same examples as a split that does not lie on the device."""

    def __init__(self, split):
        self.split = split
        self.given = 0

    def __len__(self):
        return len(self.split)

    @property
    def example(self):
        return self.split.example

    def batches(self, batch_size, key=None, first=0, part=(0, 1)):
        for batch in self.split.batches(batch_size, key, first, part):
            self.given += 1
            yield batch

    def take(self, indices):
        return Stream(self.split.take(indices))


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def plain_loop(run, state, epoch_key):
    """An epoch as a loop over batches, with what its batches' records were defined to be."""
    order_key, batch_key = jax.random.split(epoch_key)
    records = []
    for index, (x, y) in enumerate(run.data.train.batches(run.config.batch_size, order_key)):
        state, metrics = run.step(state, jax.random.fold_in(batch_key, index), x, y)
        metrics = jax.device_get(metrics)
        records.append(
            {
                "loss": float(metrics["loss"]),
                "accuracy": float(metrics["accuracy"]),
                "flips": float(sum(metrics["flips"].values())),
                "spike_rate": float(np.mean(list(metrics["spikes"].values()))),
                "skipped": float(metrics["skipped"]),
            }
        )
    return state, {name: np.array([record[name] for record in records]) for name in records[0]}


jobs = {
    "vgg, t-bso": ({}, images.scaled(255), STATIC, np.uint8),
    "vgg, bso-reset, one set of statistics": (
        {"optimizer": "bso-reset", "norm": "shared", "preset": "paper"}, images.scaled(255), STATIC, np.uint8,
    ),
    "mlp, every layer binary": (
        {"network": "mlp", "channels": (16, 16), "binary_ends": True}, images.scaled(255), STATIC, np.uint8,
    ),
    "augmented images, frozen": (
        {"frozen": True}, images.cifar(images.CIFAR10_MEAN, images.CIFAR10_STD, cutout=4), (12, 12, 3), np.uint8,
    ),
    "sequences of events, moved and mirrored": ({}, events.frames(255, 2, True), (2, 12, 12, 2), np.uint8),
    "masked spectrograms, sltt": ({"optimizer": "sltt"}, audio.standardised(2, 3, 3), STATIC, np.float32),
    "through time, bptt-adam": ({"optimizer": "bptt-adam"}, images.scaled(255), STATIC, np.uint8),
}  # fmt: skip


@pytest.mark.parametrize(("options", "front_end", "shape", "dtype"), often(jobs, "mlp, every layer binary"))
def test_an_epoch_is_the_plain_loop_over_its_batches_bit_for_bit(options, front_end, shape, dtype):
    run = prepare(dataclasses.replace(BASE, **options), data_set(front_end, shape, dtype=dtype))
    assert (run.batches, len(run.data.train) % BASE.batch_size) == (5, 5)
    key = jax.random.key(3)
    expected, records = plain_loop(run, copied(run.state), key)
    advance, state, parts = run.epochs.start(key), copied(run.state), []
    for bounds in ((0, 1), (1, 4), (4, 5)):
        state, fetch = advance(state, *bounds)
        parts.append(fetch())
    assert_same_bits(state, expected)
    for name, values in records.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
    whole, fetch = run.epochs.start(key)(copied(run.state), 0, 5)
    assert_same_bits(whole, expected)
    fetched = fetch()
    assert_same_bits({name: fetched[name] for name in records}, records)
    by_layer = [values for name, values in fetched.items() if name.startswith("flips/")]
    np.testing.assert_array_equal(np.sum(by_layer, axis=0), records["flips"])
    assert run.epochs.program._cache_size() == 1
    assert int(state.step) == 5
    assert options.get("frozen") or records["flips"].sum() > 0


@jax.jit
def cheap_step(state, key, x, y):
    """A step whose state depends on every example, its place, and the batch's key; integers, so exact."""
    places = jnp.arange(1, len(x) + 1, dtype=jnp.uint32)
    state = state * jnp.uint32(31) + jnp.sum(x[:, 0].astype(jnp.uint32) * places) + jax.random.bits(key)
    share = jax.random.uniform(jax.random.fold_in(key, 1), (4,))
    return state, {
        "loss": share[0],
        "accuracy": share[1],
        "flips": {"one": (state % 1000).astype(jnp.int32), "other": jnp.int32(7)},
        "spikes": {"one": share[2], "other": share[3]},
        "skipped": jnp.sum(y),
    }


def numbered(examples):
    return MemorySplit(np.arange(examples)[:, None] ** 2, np.arange(examples))


@pytest.mark.slow
@settings(max_examples=5)  # each one compiles
@given(batches=st.integers(1, 30), batch_size=st.integers(1, 9), cuts=st.sets(st.integers(1, 30)), data=st.data())
def test_any_cut_of_an_epoch_gives_what_the_batches_give_one_by_one(batches, batch_size, cuts, data):
    split = numbered(batches * batch_size + data.draw(st.integers(0, batch_size - 1)))
    stream, key, start = Stream(split), jax.random.key(batches), jnp.uint32(7)
    bounds = [0, *sorted(cut for cut in cuts if cut < batches), batches]
    ways = OnDevice(cheap_step, split, batch_size), BatchByBatch(cheap_step, stream, batch_size)
    states, parts = [], []
    for way in ways:
        advance, state, chunks = way.start(key), copied(start), []
        for first, last in itertools.pairwise(bounds):
            state, fetch = advance(state, first, last)
            chunks.append(fetch())
        states.append(state)
        parts.append({name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]})
    assert_same_bits(*states)
    assert_same_bits(*parts)
    assert stream.given == batches  # a remainder is dropped, and no batch is read in vain
    assert ways[0].program._cache_size() == 1
    order_key, batch_key = jax.random.split(key)
    for index, (x, y) in enumerate(split.batches(batch_size, order_key)):
        start, _ = cheap_step(start, jax.random.fold_in(batch_key, index), x, y)
    assert_same_bits(states[0], start)


@given(seed=st.integers(0, 2**32 - 1), batches=st.integers(1, 5), layers=st.integers(1, 40))
def test_the_record_of_a_batch_does_not_depend_on_the_batches_beside_it(seed, batches, layers):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0, 1, (layers, batches)).astype(np.float32)
    flips = rng.integers(0, 2**30, (layers, batches)).astype(np.int32)
    recorded = epochs._by_batch(
        {
            "loss": rates[0],
            "accuracy": rates[-1],
            "flips": dict(enumerate(flips)),
            "spikes": dict(enumerate(rates)),
            "skipped": flips[0],
        }
    )
    for batch in range(batches):
        assert recorded["spike_rate"][batch] == float(np.mean([np.asarray(rate[batch]) for rate in rates]))
        assert recorded["flips"][batch] == sum(int(count[batch]) for count in flips)  # beyond what 32 bits count
    assert {values.dtype for values in recorded.values()} == {np.dtype(np.float64)}


@pytest.mark.slow
def test_metrics_of_ones_own_are_recorded_and_evaluated(monkeypatch):
    def make_step(config, model, tx, mesh=None):
        return bsojax.make_train_step(model, tx, config.num_steps, metrics=own)

    own = {"accuracy": bsojax.losses.accuracy, "top_2": bsojax.losses.top_k(2)}
    evaluating = bsojax.make_eval_step
    monkeypatch.setattr(build, "make_step", make_step)
    monkeypatch.setattr(bsojax, "make_eval_step", lambda model, num_steps: evaluating(model, num_steps, metrics=own))
    run, records = prepare(BASE, data_set(images.scaled(255), (8, 8, 1))), []
    train(run, lambda chunk: None, records.append)
    for name, other in (("top_2", "accuracy"), ("eval_top_2", "eval_accuracy")):
        assert all(1 >= record[name] >= record[other] for record in records)
    row = {**dict.fromkeys(("loss", "accuracy", "skipped"), np.zeros(3)), "flips": {"a": np.zeros(3)}}
    with pytest.raises(ValueError, match=r"metrics: 'confusion' is an array of shape \(4, 4\)"):
        epochs._by_batch({**row, "spikes": {"a": np.zeros(3)}, "confusion": np.zeros((3, 4, 4))})


@given(first=st.integers(0, 50), length=st.integers(1, 3000), pieces=st.integers(1, 3000))
def test_a_cut_covers_everything_once_in_pieces_of_nearly_one_length(first, length, pieces):
    pieces = min(pieces, length)
    bounds = list(epochs.cut(first, first + length, pieces))
    assert [place for low, high in bounds for place in range(low, high)] == list(range(first, first + length))
    lengths = {high - low for low, high in bounds}
    assert len(bounds) == pieces
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@given(batches=st.integers(1, 3000), evaluations=st.integers(1, 60))
def test_an_epoch_on_the_device_is_heard_of_about_twenty_times(batches, evaluations):
    evaluations = min(evaluations, batches)
    way = OnDevice(cheap_step, numbered(batches), 1)
    parts = list(epochs.cut(0, batches, evaluations))
    chunks = [chunk for part in parts for chunk in way.chunks(*part)]
    assert [place for low, high in chunks for place in range(low, high)] == list(range(batches))
    assert {low for low, _ in parts} <= {low for low, _ in chunks}  # a chunk ends where an evaluation is due
    assert min(batches, max(epochs.CHUNKS, evaluations)) * 0.6 <= len(chunks) <= max(epochs.CHUNKS * 1.6, evaluations)
    if evaluations == 1:
        assert len(chunks) == min(batches, epochs.CHUNKS)


@pytest.fixture(scope="module")
def finished():
    """Two epochs of 45 batches, each cut by three evaluations, on the device and as a stream: run, chunks, records."""
    config = dataclasses.replace(BASE, evaluations=3, network="mlp", channels=(12, 12))
    data = data_set(images.scaled(255), STATIC, 45 * 8 + 3)
    results = []
    for split in (data.train, Stream(data.train)):
        run, chunks, seen = prepare(config, dataclasses.replace(data, train=split)), [], []
        state, records = train(run, chunks.append, seen.append)
        assert seen == records
        results.append((run, state, chunks, records))
    return results


def test_a_run_with_several_evaluations_compiles_one_program(finished):
    (run, _, chunks, _), _ = finished
    assert len({len(chunk.batches["loss"]) for chunk in chunks}) > 1
    assert run.epochs.program._cache_size() == 1
    assert run.step._cache_size() == 0


def test_a_stream_keeps_to_single_batches_and_gives_the_same_records(finished):
    (_, state, _, records), (run, streamed, chunks, others) = finished
    assert isinstance(run.epochs, BatchByBatch)
    assert [(chunk.epoch, chunk.done) for chunk in chunks] == [(e, b) for e in (1, 2) for b in range(1, 46)]
    assert_same_bits(state, streamed)
    assert len(records) == 6
    for record, other in zip(records, others, strict=True):
        assert {**record, "seconds": 0} == {**other, "seconds": 0}
        assert type(record["flips"]) is type(record["skipped"]) is int
    files = StreamSplit([{"image": b"1", "label": 0}], lambda image: np.zeros(STATIC, np.uint8), 4)
    assert isinstance(epochs.make_epochs(run.step, files, 1), BatchByBatch)


def test_records_are_of_the_batches_since_the_last_one(finished):
    (run, _, chunks, records), _ = finished
    flips = np.concatenate([chunk.batches["flips"] for chunk in chunks])
    assert [record["flips"] for record in records] == [int(part.sum()) for part in flips.reshape(6, 15)]
    assert [record["updates"] for record in records] == [30 * part for part in range(1, 7)]
    assert [record["flips_per_batch"] for record in records] == [float(part.mean()) for part in flips.reshape(6, 15)]
    np.testing.assert_allclose(records[0]["flip_ratio"], flips[:15].mean() / run.num_signs / 2)


def test_the_bar_moves_about_twenty_times_an_epoch_and_ends_at_the_total(finished):
    (run, _, chunks, records), _ = finished
    assert [sum(chunk.epoch == epoch for chunk in chunks) for epoch in (1, 2)] == [21, 21]  # 7 an evaluation
    text = io.StringIO()
    places = []
    with Bar(Console(file=text, force_terminal=True, width=150), "job", run) as bar:
        for chunk in chunks:
            bar.chunk(chunk)
            places.append(bar._progress.tasks[0].completed)
        bar.record(records[-1])
    assert places == sorted(set(places))
    assert places[-1] == bar._progress.tasks[0].total == 90
    assert bar._progress.tasks[0].finished
    assert f"epoch 2/2  loss {chunks[-1].mean['loss']:.3f}" in text.getvalue()


def test_a_chunk_is_heard_of_while_the_next_one_runs_and_all_are_at_the_end():
    events = []

    def advance(state, first, last):
        events.append(f"start {first}")
        return state + last - first, lambda: events.append(f"fetch {first}") or {"loss": np.full(last - first, first)}

    def trained(bounds):
        state, running = 10, Running(4, lambda chunk: events.append(f"heard {chunk.done}"))
        for first, last in bounds:
            state, fetch = advance(state, first, last)
            running.add(last, fetch)
        return state, running.finish()

    state, chunks = trained([(0, 2), (2, 3), (3, 7)])
    assert events == [
        "start 0", "start 2", "fetch 0", "heard 2", "start 3", "fetch 2", "heard 3", "fetch 3", "heard 7"
    ]  # fmt: skip
    assert state == 17
    assert [(chunk.epoch, chunk.done, len(chunk.batches["loss"])) for chunk in chunks] == [
        (4, 2, 2),
        (4, 3, 1),
        (4, 7, 4),
    ]
    assert trained([]) == (10, [])


def test_a_chunks_mean_is_that_of_its_batches():
    chunk = Chunk(1, 3, {"loss": np.array([1.0, 2.0, 6.0]), "flips": np.array([0.0, 4.0, 5.0])})
    assert chunk.mean == {"loss": 3.0, "flips": 3.0}


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_after_its_record():
    data = data_set(images.scaled(255), STATIC)
    data = dataclasses.replace(data, train=MemorySplit(data.train.x, data.train.y + 4))  # no class: the loss is NaN
    config = dataclasses.replace(BASE, network="mlp", channels=(12, 12), evaluations=2)
    run, records = prepare(config, data), []
    with pytest.raises(FloatingPointError, match=r"epoch 1: no batch had a finite loss \(4 updates were skipped\)"):
        train(run, lambda _: None, records.append)
    assert len(records) == 1


def test_examples_are_arguments_of_the_program_and_are_not_copied():
    split = MemorySplit(np.zeros((1024, 4096), np.uint8), np.zeros(1024))
    way, key = OnDevice(cheap_step, split, 8), jax.random.key(0)
    lowered = way.program.lower(jnp.uint32(0), split.x, split.y, split.order(key), key, 0, 5)
    analysis = lowered.compile().memory_analysis()
    assert analysis.argument_size_in_bytes > split.x.nbytes
    assert analysis.temp_size_in_bytes + analysis.output_size_in_bytes < split.x.nbytes / 10
