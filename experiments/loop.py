"""The training loop: batches are trained on, and now and then comes an evaluation, a record, a checkpoint.

What it does, without what makes it fast and safe::

    for epoch, end in evaluations(run):
        for x, y in batches:
            state, metrics = run.step(state, key, x, y)
        state = refreshed(run, state)
        records.append(record_of(run, at, evaluate(run, state, run.data.test)))
        keeper.save(at)

A call of the step in ``train`` is a chunk of such batches: where the training split lies in memory a compiled program
goes through them, elsewhere each is a chunk of its own (see epochs.py). The bits are the same.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import bsojax
from bsojax.optim import all_finite
from experiments import epochs
from experiments.build import Run
from experiments.data import Split
from experiments.epochs import Chunk, Running
from experiments.running.keeper import NO_KEEPER, Keeper
from experiments.running.progress import Progress, Streak
from experiments.running.stop import Stopped

STATISTICS_BATCHES = 20
"""Training batches over which the norms' statistics are re-estimated before an evaluation."""

EVALUATION_BATCH = 500
"""Examples of an evaluation batch, at most."""

OnChunk = Callable[[Chunk], None]
OnRecord = Callable[[dict[str, Any]], None]


def train(
    run: Run, on_chunk: OnChunk, on_record: OnRecord, start: Progress | None = None, keeper: Keeper = NO_KEEPER
) -> tuple[bsojax.TrainState, list[dict[str, Any]]]:
    """Trains to the end; returns the final state, its statistics re-estimated, and the records.

    Args:
      run: a fresh run.
      on_chunk: called after every chunk: about twenty an epoch where the split lies on the device, else every batch;
        the next chunk of the same epoch and evaluation is running by then.
      on_record: called after every evaluation with its record, of the batches since the last one.
      start: where to go on; None: at the beginning. What follows is the same, bit for bit, wherever it was stopped.
      keeper: what saves the training. It is not asked to save right after a batch with a skipped update.

    Raises:
      FloatingPointError: updates were skipped in too many batches in a row, or in all up to an evaluation.
    """
    at, step = start or beginning(run), None
    streak = Streak(run.config.session.max_skipped)

    def heard(chunk: Chunk) -> None:
        streak.watch(chunk)
        on_chunk(chunk)

    def save(progress: Progress) -> None:
        if streak.length:
            keeper.wait()
        else:
            keeper.save(progress)

    for epoch, end in evaluations(run)[len(at.records) :]:
        if step is None or at.batch == 0:
            step = run.epochs.start(jax.random.fold_in(at.key, epoch), at.batch)

        state, running = at.state, Running(epoch, heard)
        for first, last in run.epochs.chunks(at.batch, end):
            if keeper.due():
                save(at.after(state, first, running))
            state, metrics = step(state, first, last)
            running.add(last, metrics)
        at = at.after(state, end, running)

        if keeper.due():
            save(at)
        state = refreshed(run, at.state) if run.config.refresh else at.state
        try:
            result = evaluate(run, state, run.data.test, keeper.wait)
        except Stopped:
            save(at)
            raise
        record = record_of(run, at, result)
        at = at.recorded(state, record, run.batches)
        on_record(record)
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(
                f"epoch {epoch}: no batch had a finite loss ({record['skipped']} updates were skipped); lower "
                "--learning-rate, or look for broken inputs."
            )
        save(at)
    return at.state, list(at.records)


def beginning(run: Run) -> Progress:
    """Returns where a fresh run stands."""
    return Progress(run.state, jax.random.key(run.config.seed))


def evaluations(run: Run) -> list[tuple[int, int]]:
    """Returns where a run is evaluated: the epoch, counted from 1, and how many of its batches are done by then."""
    parts = list(epochs.cut(0, run.batches, run.config.evaluations))
    return [(epoch, last) for epoch in range(1, run.config.epochs + 1) for _, last in parts]


def refreshed(run: Run, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the norms' statistics re-estimated from training batches, where that can be done."""
    if run.config.norm == "across-time":
        return state  # training normalised by the running statistics: they are the right ones
    key = jax.random.fold_in(jax.random.key(run.config.seed), 0)
    batches = run.devices.feed(run.data.train, run.config.batch_size, key)
    frames = (run.data.front_end.evaluate(x) for x, _ in itertools.islice(batches, STATISTICS_BATCHES))
    good = (frame for frame in frames if all_finite(frame))  # training skipped the others too
    state = bsojax.refresh_statistics(run.model, state, good, run.config.num_steps)
    return dataclasses.replace(state, batch_stats=run.devices.everywhere(state.batch_stats))


def evaluate(
    run: Run, state: bsojax.TrainState, split: Split, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Loss and accuracy on a split, each example counted once; ``between`` is called before every batch."""
    chunks = -(-len(split) // EVALUATION_BATCH)
    size = -(-len(split) // chunks)  # all of equal size but the last: at most two shapes to compile
    size = -(-size // run.devices.count) * run.devices.count
    sums, count = np.zeros(2), 0
    for x, y in run.devices.feed(split, size):
        between()
        result = run.evaluate(state, x, y)
        sums += len(x) * np.array([result["loss"], result["accuracy"]])
        count += len(x)
    loss, accuracy = sums / count
    return {"loss": float(loss), "accuracy": float(accuracy)}


def record_of(run: Run, at: Progress, evaluated: dict[str, float]) -> dict[str, Any]:
    """Returns the record of an evaluation and of the batches since the last one: means, of the loss where finite."""
    batches, calls = at.pending, run.config.updates_per_batch
    good = np.isfinite(batches["loss"])
    flips = float(np.mean(batches["flips"]))
    return {
        "loss": float(np.mean(batches["loss"][good])) if good.any() else math.nan,
        "accuracy": float(np.mean(batches["accuracy"])),
        "flips": int(batches["flips"].sum()),
        "flips_per_batch": flips,
        "flip_ratio": flips / (run.num_signs * calls),
        "spike_rate": float(np.mean(batches["spike_rate"])),
        "skipped": int(batches["skipped"].sum()),
        "epoch": (len(at.records) + 1) / run.config.evaluations,
        "updates": ((at.epoch - 1) * run.batches + at.batch) * calls,
        "eval_loss": evaluated["loss"],
        "eval_accuracy": evaluated["accuracy"],
        "seconds": round(at.seconds, 3),
    }
