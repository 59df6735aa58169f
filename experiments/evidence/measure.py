"""One run of a study: trained on four fifths of the training examples, judged on the rest, tested at its end."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bsojax
from bsojax import online
from experiments.build import Run, prepare
from experiments.config import Config, as_json
from experiments.data import DataSet, Split, hold_out, load
from experiments.evaluation import evaluate, refreshed, totals
from experiments.loop import train

WINDOW = 25
"""Batches over which the training accuracy is averaged."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of a study.

    Attributes:
      label: the row that it belongs to.
      config: its settings, including the seed.
      memory: whether the bytes of its compiled step are measured.
      statistics: whether its test accuracy is also measured with running and with the test batch's own statistics.
    """

    label: str
    config: Config
    memory: bool = False
    statistics: bool = False


def measure(job: Job) -> dict[str, Any]:
    """Trains a job and returns what was measured, as JSON values.

    "validation" is the accuracy on held-out training examples at each evaluation, "train" the training accuracy after
    each batch, averaged over WINDOW batches and thinned to at most 200 points, both with the count of updates; "test"
    is the accuracy at the end of the training, with re-estimated statistics.
    """
    config = job.config
    data = _data(config.dataset, config.data_dir, config.num_steps)
    run = prepare(config, hold_out(data))
    result: dict[str, Any] = {"seed": config.seed}
    if job.memory:
        result["memory"] = memory(run)
    accuracies: list[float] = []
    state, records = train(run, lambda chunk: accuracies.extend(chunk.batches["accuracy"]), lambda _: None)
    if job.statistics:
        result["test_running"] = evaluate(run, state, data.test)["accuracy"] if not config.refresh else None
        result["test_batch"] = accuracy_as_in_training(run, state, data.test)
        state = refreshed(run, state)
    test = evaluate(run, state, data.test)
    done = totals(run, records)
    return result | {
        "test": test["accuracy"],
        "test_loss": test["loss"],
        "validation": [[record["updates"], record["eval_accuracy"]] for record in records],
        "train": _thinned(accuracies, records[-1]["updates"]),
        **done,
        "seconds": round(done["seconds"], 1),
    }


def settings(config: Config) -> dict[str, Any]:
    """The settings of a run that decide its result, as JSON values: all but the seed and where things lie."""
    fields = as_json(config)
    ignored = ("seed", "control", "validation", "data_dir", "output", "session")
    kept = {key: value for key, value in fields.items() if key not in ignored}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def memory(run: Run) -> dict[str, int]:
    """Returns the bytes of a run's training by tree, and of its compiled step."""
    report = bsojax.memory_report(run.state, model=run.model, x=run.frame)
    example, size = run.data.train.example, run.config.batch_size
    x = jax.ShapeDtypeStruct((size, *example.shape), example.dtype)
    y = jax.ShapeDtypeStruct((size,), jnp.int32)
    analysis = run.step.lower(run.state, jax.random.key(0), x, y).compile().memory_analysis()
    return report | {
        "step_arguments": analysis.argument_size_in_bytes,
        "step_temporaries": analysis.temp_size_in_bytes,
    }


def accuracy_as_in_training(run: Run, state: bsojax.TrainState, split: Split) -> float:
    """Returns the accuracy when each batch is normalised as in training, mostly by its own statistics.

    No user gets this accuracy: it needs many test examples at once. Its distance to the accuracy with the statistics in
    the state is what stale statistics cost.
    """

    @jax.jit
    def correct(variables: dict[str, Any], x: jax.Array, y: jax.Array) -> jax.Array:
        x = run.data.front_end.evaluate(x)
        sequence = x.ndim == len(state.input_shape) + 2

        def body(carry: tuple[Any, ...], frame: jax.Array | None) -> tuple[tuple[Any, ...], jax.Array]:
            t, neurons, stats = carry
            given = {**variables, "batch_stats": stats}
            out = online.forward(run.model, given, neurons, x if frame is None else frame, t, train=True)
            return (t + 1, out.neurons, out.batch_stats), out.logits

        begun = online.start(run.model, x[0] if sequence else x, run.config.num_steps, train=True, learns=False)
        first = (jnp.zeros((), jnp.int32), begun.neurons, state.batch_stats)
        _, logits = jax.lax.scan(body, first, x if sequence else None, length=run.config.num_steps)
        return jnp.sum(logits.sum(0).argmax(-1) == y)

    size = min(run.config.batch_size, len(split))
    return float(sum(int(correct(state.trainable, x, y)) for x, y in split.batches(size)) / len(split))


@functools.lru_cache(maxsize=2)
def _data(name: str, data_dir: Any, num_steps: int) -> DataSet:
    return load(name, data_dir, num_steps)


def _thinned(accuracies: list[float], updates: int) -> list[list[float]]:
    """The running mean of the training accuracy, at most 200 points with their counts of updates."""
    if len(accuracies) < WINDOW:
        return [[updates, float(np.mean(accuracies))]]
    means = np.convolve(accuracies, np.ones(WINDOW) / WINDOW, "valid")
    at = (np.arange(len(means)) + WINDOW) * updates / len(accuracies)
    chosen = np.unique(np.linspace(0, len(means) - 1, 200).round().astype(int))
    return [[round(float(at[index]), 1), round(float(means[index]), 5)] for index in chosen]
