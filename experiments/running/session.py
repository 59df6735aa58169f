"""A session of a run: it is trained from its current state, its folder is filled, and tables show the results."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

import bsojax
from experiments import curves, layers
from experiments.build import Run, prepare
from experiments.display import Bar, memory_table, result_table
from experiments.environment import environment
from experiments.evaluation import totals
from experiments.running.checkpoints import Checkpoints
from experiments.running.devices import is_first
from experiments.running.events import writer
from experiments.running.files import write_json
from experiments.running.folder import MODEL
from experiments.running.keeper import CheckpointKeeper
from experiments.running.records import append_record, write_records
from experiments.running.stop import Stop, Stopped

Train = Callable[..., tuple[bsojax.TrainState, list[dict[str, Any]]]]
"""The training loop: ``train`` of experiments/loop.py."""

Result = tuple[bsojax.TrainState, list[dict[str, Any]], dict[str, Any]]
"""The final state of a training, its records, and its entries in the table."""


def execute(run: Run, train: Train, folder: Path, console: Console, stop: Stop) -> dict[str, Any]:
    """Trains a run and its control, fills the folder, prints the tables; returns the content of summary.json.

    Parts that the folder already holds are not repeated.
    """
    config, split = run.config, "validation" if run.config.validation else "test"
    num_params = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    memory = bsojax.memory_report(run.state, model=run.model, x=run.frame)
    finished = folder / "summary.json"
    if finished.exists():
        console.print(f"{folder}: this run is done", soft_wrap=True, highlight=False)
        summary_file = json.loads(finished.read_text())
    else:
        label = config.label
        examples = f"{len(run.data.train):,} training and {len(run.data.test):,} {split} examples"
        places = f" on {run.devices.count} devices" if run.devices.count > 1 else ""
        head = f"{config.dataset}: {examples}, T = {config.num_steps}, seed {config.seed}{places}, into {folder}"
        console.print(head, soft_wrap=True)
        state, lines, summary = _trained(run, train, label, folder, console, stop)
        results, histories = {label: summary}, {label: lines}
        if config.control and not config.frozen:
            control, name = prepare(dataclasses.replace(config, frozen=True), run.data), "frozen control"
            _, histories[name], results[name] = _trained(control, train, name, folder / "control", console, stop)
        summary_file = {"split": split, "results": results, "memory": memory, **environment()}
        if is_first():
            bsojax.save_model(folder / MODEL, run.model, state)
            curves.draw(folder / "curves.png", histories, split, control="frozen control")
            layers.draw(folder / "layers.png", lines)
            write_json(finished, summary_file)  # last: it says that all is there
    console.print(result_table(summary_file["results"], split))
    for name, result in summary_file["results"].items():
        for line in layers.advice(name, result):
            console.print(line, style="bold red", soft_wrap=True, highlight=False)
    console.print(memory_table(memory, run.num_signs, num_params, config.batch_size))
    console.print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return summary_file


def _trained(run: Run, train: Train, label: str, folder: Path, console: Console, stop: Stop) -> Result:
    """Trains to the end, from the newest good checkpoint if there is one."""
    session = run.config.session
    checkpoints = Checkpoints(folder / "checkpoints", run.config, run.batches)
    start, skipped = checkpoints.restore(run.state)
    for name, reason in skipped.items():
        console.print(f"{label}: checkpoint {name} was skipped: {reason}", soft_wrap=True, highlight=False)
    if start is not None:
        place = f"epoch {start.epoch}, batch {start.batch}" if start.epoch <= run.config.epochs else "the end"
        console.print(f"{label}: continues from {place}", soft_wrap=True, highlight=False)
        if is_first():
            write_records(folder, start.records)
    keeper = CheckpointKeeper(checkpoints, session.checkpoint_minutes, stop)
    with Bar(console, label, run) as bar, writer(folder, session.tensorboard and is_first(), start) as write:

        def on_record(record: dict[str, Any]) -> None:
            bar.record(record)
            if is_first():
                append_record(folder, record)
                write(record)

        with _noting(checkpoints):
            state, lines = train(run, bar.chunk, on_record, start, keeper)
    last = {"accuracy": "eval_accuracy", "loss": "eval_loss", "train_accuracy": "accuracy"}
    ends = layers.extremes(lines[-1])
    return state, lines, {name: lines[-1][key] for name, key in last.items()} | totals(run, lines) | ends


@contextlib.contextmanager
def _noting(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds to any error that ends a training a note on where it can be resumed."""
    try:
        yield
    except (Stopped, OSError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
        names = checkpoints.names()
        if names:
            error.add_note(f"The last good checkpoint is {checkpoints.path(names[-1])}; resume with --resume.")
        else:
            error.add_note("There is no checkpoint yet; with --resume the run starts over.")
        raise
