"""The training loop: epochs of batches, with a record of every epoch."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import bsojax
from experiments.config import Config
from experiments.data import Arrays
from experiments.presets import make_model, make_optimizer

STATISTICS_BATCHES = 20
"""Training batches over which the norms' statistics are re-estimated before an evaluation."""


EVALUATION_BATCH = 500
"""Images of an evaluation batch, at most."""

OnBatch = Callable[[int, dict[str, float]], None]
OnEpoch = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to start: everything that can be wrong has been checked.

    Attributes:
      config: its settings.
      data: its data.
      model: the network.
      state: the initial state; the first batch donates it.
      step, evaluate: training and evaluation of one batch.
    """

    config: Config
    data: Arrays
    model: Any
    state: bsojax.TrainState
    step: Callable[..., Any]
    evaluate: Callable[..., Any]

    @property
    def batches(self) -> int:
        """Batches an epoch."""
        return len(self.data.train_x) // self.config.batch_size

    @property
    def num_signs(self) -> int:
        """The number of binary weights."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.signs))


def prepare(config: Config, data: Arrays) -> Run:
    """Builds a run.

    Raises:
      ValueError: a setting is out of range, or the batch is larger than the data set.
    """
    config.check()
    if config.batch_size > len(data.train_x):
        raise ValueError(
            f"--batch-size: {config.batch_size} is larger than the {len(data.train_x)} training images of "
            f"'{config.dataset}'."
        )
    batches = config.epochs * (len(data.train_x) // config.batch_size)
    model = make_model(config, data.num_classes)
    tx = make_optimizer(config, batches)
    state = bsojax.init(model, tx, jax.random.key(config.seed), data.train_x[: config.batch_size])
    step = bsojax.make_train_step(model, tx, config.num_steps)
    return Run(config, data, model, state, step, bsojax.make_eval_step(model, config.num_steps))


def train(run: Run, on_batch: OnBatch, on_epoch: OnEpoch) -> tuple[bsojax.TrainState, list[dict[str, Any]]]:
    """Trains to the end; returns the final state, its statistics re-estimated, and a record an epoch.

    Args:
      run: a fresh run.
      on_batch: called after every batch with the epoch and the batch's record.
      on_epoch: called after every epoch with its record.

    Raises:
      FloatingPointError: an epoch's loss is not finite.
    """
    state, records = run.state, []
    rng = np.random.default_rng(run.config.seed)
    for epoch in range(1, run.config.epochs + 1):
        start = time.perf_counter()
        totals: list[dict[str, float]] = []
        order = rng.permutation(len(run.data.train_x))
        for x, y in _batches(run, order):
            state, metrics = run.step(state, x, y)
            totals.append(_summary(metrics))
            on_batch(epoch, totals[-1])
        means = {key: float(np.mean([total[key] for total in totals])) for key in totals[0]}
        state = _refreshed(run, state, order)
        test = evaluate(run, state)
        record: dict[str, Any] = {
            "epoch": epoch,
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            "flips": int(sum(total["flips"] for total in totals)),
            "flips_per_batch": means["flips"],
            "flip_ratio": means["flips"] / (run.num_signs * run.config.num_steps),
            "spike_rate": means["spike_rate"],
            "skipped": int(sum(total["skipped"] for total in totals)),
            "eval_loss": test["loss"],
            "eval_accuracy": test["accuracy"],
            "seconds": round(time.perf_counter() - start, 3),
        }
        records.append(record)
        on_epoch(record)
        if not np.isfinite(record["loss"]):
            raise FloatingPointError(
                f"epoch {epoch}: the loss is not finite ({record['skipped']} updates were skipped); lower "
                "--learning-rate, or look for broken inputs."
            )
    return state, records


def evaluate(run: Run, state: bsojax.TrainState) -> dict[str, float]:
    """Loss and accuracy on the evaluation images, each image counted once."""
    chunks = -(-len(run.data.test_x) // EVALUATION_BATCH)  # of nearly equal size: at most two shapes to compile
    sums = np.zeros(2)
    for chosen in np.array_split(np.arange(len(run.data.test_x)), chunks):
        x, y = run.data.test_x[chosen], run.data.test_y[chosen]
        result = run.evaluate(state, x, y)
        sums += len(x) * np.array([result["loss"], result["accuracy"]])
    loss, accuracy = sums / len(run.data.test_x)
    return {"loss": float(loss), "accuracy": float(accuracy)}


def _batches(run: Run, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    size = run.config.batch_size
    for index in range(run.batches):
        chosen = order[index * size : (index + 1) * size]
        yield run.data.train_x[chosen], run.data.train_y[chosen]


def _refreshed(run: Run, state: bsojax.TrainState, order: np.ndarray) -> bsojax.TrainState:
    size = run.config.batch_size
    starts = range(0, min(run.batches, STATISTICS_BATCHES) * size, size)
    batches = (run.data.train_x[order[start : start + size]] for start in starts)
    return bsojax.refresh_statistics(run.model, state, batches, run.config.num_steps)


def _summary(metrics: dict[str, Any]) -> dict[str, float]:
    metrics = jax.device_get(metrics)
    return {
        "loss": float(metrics["loss"]),
        "accuracy": float(metrics["accuracy"]),
        "flips": float(sum(metrics["flips"].values())),
        "spike_rate": float(np.mean(list(metrics["spikes"].values()))),
        "skipped": float(metrics["skipped"]),
    }
