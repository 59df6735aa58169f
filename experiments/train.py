"""Trains a network: ``python -m experiments.train CONFIG [options]``.

A run is a config and its data, built into a network, a compiled step and a state (build.py). To train it is::

    for epoch in range(1, config.epochs + 1):
        for x, y in batches:
            state, metrics = run.step(state, key, x, y)
        state = refreshed(run, state)
        records.append(record_of(run, at, evaluate(run, state, run.data.test)))
        keeper.save(at)

``train`` below is this loop, made fast and safe. A call of its step is a chunk of batches: where the training split
lies in memory, a compiled program goes through them; elsewhere each batch is its own chunk (epochs.py). Between chunks
the training may be saved, stopped and resumed (running/). The results are bit-identical.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console

import bsojax
from experiments.build import Run, prepare
from experiments.data import hold_out, load
from experiments.epochs import Chunk, Running
from experiments.evaluation import evaluate, evaluations, record_of, refreshed
from experiments.running.command_line import BAD_INPUT, FAILED, ending, parse
from experiments.running.devices import is_first, start_processes
from experiments.running.folder import entered
from experiments.running.keeper import NO_KEEPER, Guard, Keeper
from experiments.running.progress import Progress
from experiments.running.session import execute
from experiments.running.stop import Stop


def train(
    run: Run,
    on_chunk: Callable[[Chunk], None],
    on_record: Callable[[dict[str, Any]], None],
    start: Progress | None = None,
    keeper: Keeper = NO_KEEPER,
) -> tuple[bsojax.TrainState, list[dict[str, Any]]]:
    """Trains to the end; returns the final state, its statistics re-estimated, and the records.

    Args:
      run: a fresh run.
      on_chunk: called after every chunk: about twenty per epoch if the split lies on the device, otherwise every batch;
        by then, the next chunk of the same epoch and evaluation is running.
      on_record: called after every evaluation with the record of the batches since the last one.
      start: where to continue; None: at the beginning. The result does not depend on where a run was stopped.
      keeper: what saves the training. It is not asked to save right after a batch with a skipped update.

    Raises:
      FloatingPointError: updates were skipped in too many consecutive batches, or in all batches before an evaluation.
    """
    at, guard = start or beginning(run), Guard(keeper, run.config.session.max_skipped, on_chunk)
    for epoch in range(at.epoch, run.config.epochs + 1):
        step = run.epochs.start(jax.random.fold_in(at.key, epoch), at.batch)
        for end in evaluations(run)[len(at.records) % run.config.evaluations :]:
            state, running = at.state, Running(epoch, guard.watch)
            for first, last in run.epochs.chunks(at.batch, end):
                if guard.due():
                    guard.save(at.after(state, first, running))
                state, metrics = step(state, first, last)
                running.add(last, metrics)
            at = at.after(state, end, running)

            if guard.due():
                guard.save(at)
            state = refreshed(run, at.state) if run.config.refresh else at.state
            result = evaluate(run, state, run.data.test, functools.partial(guard.wait, at))
            record = record_of(run, at, result)
            at = at.recorded(state, record, run.batches)
            on_record(record)
            guard.check(epoch, record)
            guard.save(at)
    return at.state, list(at.records)


def beginning(run: Run) -> Progress:
    """Returns where a fresh run stands."""
    return Progress(run.state, jax.random.key(run.config.seed))


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 if the run is done; 2 for a bad setting, reported in one line before anything is trained; 1 if the
    run could not continue; 143 or 130 if it was asked to stop, by SIGTERM or Ctrl-C, and has saved its work.
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop().listening())
        with ending(2, BAD_INPUT, stop):
            name, config = parse(arguments)
            config.check()
            start_processes(config.session)
            data = load(config.dataset, config.data_dir, config.num_steps)
            run = prepare(config, hold_out(data) if config.validation else data)
            folder = stack.enter_context(entered(config, name, run.facts))
        with ending(1, FAILED, stop):
            execute(run, train, folder, Console(quiet=not is_first()), stop)


if __name__ == "__main__":
    main()
