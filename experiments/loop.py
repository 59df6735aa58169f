"""The training loop: epochs in chunks of batches, with a record at every evaluation."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import bsojax
from bsojax._packing import sign_counts
from experiments import epochs, rules, run_folder
from experiments.config import Config
from experiments.data import DataSet, Split
from experiments.epochs import Chunk, Epochs
from experiments.networks import make_model

STATISTICS_BATCHES = 20
"""Training batches over which the norms' statistics are re-estimated before an evaluation."""

EVALUATION_BATCH = 500
"""Examples of an evaluation batch, at most."""

OnChunk = Callable[[Chunk], None]
OnRecord = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to start: everything that can be wrong has been checked.

    Attributes:
      config: its settings.
      data: its data; its test part is what evaluations look at.
      model: the network.
      state: the initial state; the first chunk donates it.
      step: a function of state, key and a stored batch: front end and training in one compiled step.
      epochs: that step over the training split.
      evaluate: a function of state and a stored batch.
    """

    config: Config
    data: DataSet
    model: Any
    state: bsojax.TrainState
    step: Any
    epochs: Epochs
    evaluate: Any

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return len(self.data.train) // self.config.batch_size

    @property
    def num_signs(self) -> int:
        """The number of binary weights."""
        return sum(sign_counts(self.state.signs))

    @property
    def frame(self) -> jax.ShapeDtypeStruct:
        """The shape of what the network sees of a training batch at one time step."""
        return _frame(self.config, self.data)


def prepare(config: Config, data: DataSet) -> Run:
    """Builds a run.

    Raises:
      ValueError: a setting is out of range, or the batch is larger than the data set.
    """
    config.check()
    data = _chosen(config, data)
    if config.batch_size > len(data.train):
        raise ValueError(
            f"--batch-size: {config.batch_size} is larger than the {len(data.train)} training examples of "
            f"'{config.dataset}'."
        )
    if config.evaluations > len(data.train) // config.batch_size:
        raise ValueError(f"--evaluations: {config.evaluations} an epoch are more than its batches.")
    model = make_model(config, data.num_classes, rules.make_neuron(config))
    tx = rules.make_optimizer(config, config.epochs * (len(data.train) // config.batch_size))
    state = bsojax.init(model, tx, jax.random.key(config.seed), _frame(config, data))
    if config.start is not None:
        state = run_folder.started_from(config.start, state)
    if config.packed:
        state = dataclasses.replace(state, signs=bsojax.pack_signs(state.signs))
    online = rules.make_step(config, model, tx)
    judge = bsojax.make_eval_step(model, config.num_steps)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: bsojax.TrainState, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return online(state, data.front_end.train(key, x), y)

    @jax.jit
    def evaluate(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> Any:
        return judge(state, data.front_end.evaluate(x), y)

    way = epochs.make_epochs(step, data.train, config.batch_size)
    return Run(config, data, model, state, step, way, evaluate)


def train(run: Run, on_chunk: OnChunk, on_record: OnRecord) -> tuple[bsojax.TrainState, list[dict[str, Any]]]:
    """Trains to the end; returns the final state, its statistics re-estimated, and the records.

    Args:
      run: a fresh run.
      on_chunk: called after every chunk: about twenty an epoch where the split lies on the device, else every batch;
        the next chunk of the same epoch and evaluation is running by then.
      on_record: called after every evaluation with its record, of the batches since the last one.

    Raises:
      FloatingPointError: a record's loss is not finite.
    """
    state, records, config = run.state, [], run.config
    key = jax.random.key(config.seed)
    updates = 0
    for epoch in range(1, config.epochs + 1):
        advance = run.epochs.start(jax.random.fold_in(key, epoch))
        for part, (first, last) in enumerate(epochs.cut(0, run.batches, config.evaluations), 1):
            start = time.perf_counter()
            bounds = run.epochs.chunks(first, last)
            state, chunks = epochs.run_chunks(advance, state, epoch, bounds, on_chunk)
            updates += (last - first) * rules.updates_per_batch(config)
            trained = time.perf_counter()
            state = refreshed(run, state) if config.refresh else state
            result = evaluate(run, state, run.data.test)
            records.append(
                _record(run, chunks)
                | {
                    "epoch": epoch - 1 + part / config.evaluations,
                    "updates": updates,
                    "eval_loss": result["loss"],
                    "eval_accuracy": result["accuracy"],
                    "seconds": round(trained - start, 3),
                }
            )
            on_record(records[-1])
            if not np.isfinite(records[-1]["loss"]):
                raise FloatingPointError(
                    f"epoch {epoch}: the loss is not finite ({records[-1]['skipped']} updates were skipped); lower "
                    "--learning-rate, or look for broken inputs."
                )
    return state, records


def evaluate(run: Run, state: bsojax.TrainState, split: Split) -> dict[str, float]:
    """Loss and accuracy on a split, each example counted once."""
    chunks = -(-len(split) // EVALUATION_BATCH)
    sums, count = np.zeros(2), 0
    for x, y in split.batches(-(-len(split) // chunks)):  # of equal size but the last: at most two shapes to compile
        result = run.evaluate(state, x, y)
        sums += len(x) * np.array([result["loss"], result["accuracy"]])
        count += len(x)
    loss, accuracy = sums / count
    return {"loss": float(loss), "accuracy": float(accuracy)}


def refreshed(run: Run, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the norms' statistics re-estimated from training batches, where that can be done."""
    if run.config.norm == "across-time":
        return state  # training normalised by the running statistics: they are the right ones
    batches = run.data.train.batches(run.config.batch_size, jax.random.fold_in(jax.random.key(run.config.seed), 0))
    frames = (run.data.front_end.evaluate(x) for x, _ in itertools.islice(batches, STATISTICS_BATCHES))
    return bsojax.refresh_statistics(run.model, state, frames, run.config.num_steps)


def _chosen(config: Config, data: DataSet) -> DataSet:
    """The data set with no more training examples than the config asks for."""
    if config.train_examples is None or config.train_examples >= len(data.train):
        return data
    order = np.random.default_rng(2026).permutation(len(data.train))
    return dataclasses.replace(data, train=data.train.take(np.sort(order[: config.train_examples])))


def _frame(config: Config, data: DataSet) -> jax.ShapeDtypeStruct:
    example = data.train.example
    stored = jax.ShapeDtypeStruct((config.batch_size, *example.shape), example.dtype)
    seen = jax.eval_shape(data.front_end.evaluate, stored)
    # A static frame has four axes, a sequence of frames five.
    return seen if len(seen.shape) < 5 else jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype)


def _record(run: Run, chunks: list[Chunk]) -> dict[str, Any]:
    batches = {name: np.concatenate([chunk.batches[name] for chunk in chunks]) for name in chunks[0].batches}
    means = {name: float(np.mean(values)) for name, values in batches.items()}
    return {
        "loss": means["loss"],
        "accuracy": means["accuracy"],
        "flips": int(batches["flips"].sum()),
        "flips_per_batch": means["flips"],
        "flip_ratio": means["flips"] / (run.num_signs * rules.updates_per_batch(run.config)),
        "spike_rate": means["spike_rate"],
        "skipped": int(batches["skipped"].sum()),
    }
