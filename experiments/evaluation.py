"""How good a run is at some point of its training: when that is asked, with which statistics, and what is recorded."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import bsojax
from bsojax.optim import all_finite
from experiments import epochs
from experiments.build import Run
from experiments.data import Split
from experiments.front_ends.sequences import Padded
from experiments.running.progress import Progress

STATISTICS_BATCHES = 20
"""Training batches over which the norms' statistics are re-estimated before an evaluation."""

EVALUATION_BATCH = 500
"""Examples of an evaluation batch, at most."""


LAYERS = (epochs.SPIKES, epochs.FLIPS)
"""What the names of records of single layers begin with."""


def evaluations(run: Run) -> list[int]:
    """Returns after how many batches of an epoch a run is evaluated."""
    return [last for _, last in epochs.cut(0, run.batches, run.config.evaluations)]


def refreshed(run: Run, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the norms' statistics re-estimated from training batches, where that can be done."""
    if run.config.norm == "across-time":
        return state  # training normalised by the running statistics: they are the right ones
    key = jax.random.fold_in(jax.random.key(run.config.seed), 0)
    batches = run.devices.feed(run.data.train, run.config.batch_size, key)
    seen = (run.data.front_end.evaluate(x) for x, _ in itertools.islice(batches, STATISTICS_BATCHES))
    good = (frames for frames in seen if all_finite(frames))  # training skipped the others too
    given = ((frames.x, None, frames.mask) if isinstance(frames, Padded) else frames for frames in good)
    state = bsojax.refresh_statistics(run.model, state, given, run.config.num_steps)
    return dataclasses.replace(state, batch_stats=run.devices.everywhere(state.batch_stats))


def evaluate(
    run: Run, state: bsojax.TrainState, split: Split, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Loss, accuracy and other metrics of a split: the mean over examples, without those that are only padding.

    ``between`` is called before every batch.
    """
    chunks = -(-len(split) // EVALUATION_BATCH)
    size = -(-len(split) // chunks)  # all of equal size but the last: at most two shapes to compile
    size = -(-size // run.devices.count) * run.devices.count
    sums: dict[str, float] = {}
    count = 0
    for x, y in run.devices.feed(split, size):
        between()
        metrics, examples = run.evaluate(state, x, y)
        count += int(examples)
        for name, value in metrics.items():
            # Of padding alone they are NaN.
            sums[name] = sums.get(name, 0.0) + (int(examples) * float(value) if examples else 0.0)
    return {name: total / count if count else math.nan for name, total in sums.items()}


def record_of(run: Run, at: Progress, evaluated: dict[str, float]) -> dict[str, Any]:
    """Returns the record of an evaluation and of the batches since the last one: means, of the loss where finite."""
    batches, calls = at.pending, run.config.updates_per_batch
    good = np.isfinite(batches["loss"])
    more = [name for name in batches if name not in epochs.RECORDED and not name.startswith(LAYERS)]
    sizes = run.leaf_sizes
    flips = float(np.mean(batches["flips"]))
    return {
        "loss": float(np.mean(batches["loss"][good])) if good.any() else math.nan,
        "accuracy": float(np.mean(batches["accuracy"])),
        "flips": int(batches["flips"].sum()),
        "flips_per_batch": flips,
        "flip_ratio": flips / (run.num_signs * calls),
        "flip_ratios": {
            name: n / max(sizes[name] * calls, 1) for name, n in epochs.of_layers(batches, epochs.FLIPS).items()
        },
        "spike_rate": float(np.mean(batches["spike_rate"])),
        "spike_rates": epochs.of_layers(batches, epochs.SPIKES),
        "skipped": int(batches["skipped"].sum()),
        "epoch": (len(at.records) + 1) / run.config.evaluations,
        "updates": ((at.epoch - 1) * run.batches + at.batch) * calls,
        "eval_loss": evaluated["loss"],
        "eval_accuracy": evaluated["accuracy"],
        "seconds": round(at.seconds, 3),
        **{name: float(np.mean(batches[name])) for name in more},
        **{f"eval_{name}": value for name, value in evaluated.items() if name not in epochs.RECORDED},
    }


def totals(run: Run, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns what a training did from its beginning to its last record: sums, and the mean of the spike rate."""
    flips = sum(record["flips"] for record in records)
    return {
        "flip_ratio": flips / (run.num_signs * records[-1]["updates"]),
        "flips_per_weight": flips / run.num_signs,
        "spike_rate": float(np.mean([record["spike_rate"] for record in records])),
        "skipped": sum(record["skipped"] for record in records),
        "seconds": sum(record["seconds"] for record in records),
    }
