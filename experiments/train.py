"""Trains a network: ``python -m experiments.train CONFIG [options]``.

The loop over batches, evaluations, records and checkpoints is ``train`` in loop.py; build.py makes what it calls out of
a config, running/ holds what keeps it safe. Here is the command line around it.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import tyro
from rich.console import Console

import bsojax
from experiments import curves
from experiments.build import Run, prepare
from experiments.config import of_command_line
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.display import Bar, memory_table, result_table
from experiments.environment import environment
from experiments.loop import train
from experiments.rules import described
from experiments.running.checkpoints import Checkpoints
from experiments.running.devices import is_first, start_processes
from experiments.running.events import writer
from experiments.running.files import write_json
from experiments.running.folder import entered
from experiments.running.keeper import CheckpointKeeper
from experiments.running.records import append_record, write_records
from experiments.running.stop import Stop, Stopped
from experiments.saved_model import save_model

HELP = f"""Trains a network.

Rules (--optimizer, --preset) and their settings:

{described()}"""

Result = tuple[bsojax.TrainState, list[dict[str, Any]], dict[str, Any]]
"""The final state of a training, its records, and what the table says of it."""


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 where the run is done; 2 for a bad setting, told in one line before anything is trained; 1 where the
    run could not go on; 143 or 130 where it was asked to stop, by SIGTERM or Ctrl-C, and has saved its work.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    config = tyro.extras.overridable_config_cli(
        CONFIGS, prog="python -m experiments.train", description=HELP, args=arguments
    )
    name = next(argument for argument in arguments if argument in CONFIGS)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop().listening())
        try:
            config = of_command_line(config, CONFIGS[name][1], arguments)
            config.check()
            start_processes(config.session)
            data = load(config.dataset, config.data_dir, config.num_steps)
            data = hold_out(data) if config.validation else data
            run = prepare(config, data)
            folder = stack.enter_context(entered(config, name, run.facts))
        except (ValueError, TypeError, OSError, ImportError) as error:
            _end(error, 2)
        try:
            execute(run, folder, Console(quiet=not is_first()), stop)
        except Stopped as error:
            _end(error, stop.status)
        except (ValueError, OSError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
            _end(error, 1)


def execute(run: Run, folder: Path, console: Console, stop: Stop) -> dict[str, Any]:
    """Trains a run and its control, fills the folder, prints the tables; returns the content of summary.json.

    What the folder holds of them already is not done again.
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
        state, lines, summary = _train(run, console, label, folder, stop)
        results, histories = {label: summary}, {label: lines}
        if config.control and not config.frozen:
            control = prepare(dataclasses.replace(config, frozen=True), run.data)
            where = folder / "control"
            _, histories["frozen control"], results["frozen control"] = _train(
                control, console, "frozen control", where, stop
            )
        summary_file = {"split": split, "results": results, "memory": memory, **environment()}
        if is_first():
            save_model(folder / "model.msgpack", state)
            curves.draw(folder / "curves.png", histories, split)
            write_json(finished, summary_file)  # last: it says that all is there
    console.print(result_table(summary_file["results"], split))
    console.print(memory_table(memory, run.num_signs, num_params, config.batch_size))
    console.print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return summary_file


def _train(run: Run, console: Console, label: str, folder: Path, stop: Stop) -> Result:
    """Trains to the end, from the newest good checkpoint on where there is one."""
    session = run.config.session
    checkpoints = Checkpoints(folder / "checkpoints", run.config, run.batches)
    start, skipped = checkpoints.restore(run.state)
    for name, reason in skipped.items():
        console.print(f"{label}: checkpoint {name} was skipped: {reason}", soft_wrap=True, highlight=False)
    if start is not None:
        place = f"epoch {start.epoch}, batch {start.batch}" if start.epoch <= run.config.epochs else "the end"
        console.print(f"{label}: goes on from {place}", soft_wrap=True, highlight=False)
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
    flips = sum(record["flips"] for record in lines)
    summary = {
        "accuracy": lines[-1]["eval_accuracy"],
        "loss": lines[-1]["eval_loss"],
        "train_accuracy": lines[-1]["accuracy"],
        "flip_ratio": flips / (run.num_signs * lines[-1]["updates"]),
        "flips_per_weight": flips / run.num_signs,
        "spike_rate": float(np.mean([record["spike_rate"] for record in lines])),
        "skipped": sum(record["skipped"] for record in lines),
        "seconds": sum(record["seconds"] for record in lines),
    }
    return state, lines, summary


@contextlib.contextmanager
def _noting(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds to whatever ends a training where it can go on from."""
    try:
        yield
    except (Stopped, OSError, FloatingPointError, jax.errors.JaxRuntimeError) as error:
        names = checkpoints.names()
        if names:
            error.add_note(f"The last good checkpoint is {checkpoints.path(names[-1])}; go on from it with --resume.")
        else:
            error.add_note("There is no checkpoint yet; with --resume it begins again.")
        raise


def _end(error: BaseException, status: int) -> NoReturn:
    """Ends the process with a message of one line, and what is known of the last good checkpoint."""
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError):
        text = f"the device failed: {text.partition(chr(10))[0]}"
    lines = [f"{'' if isinstance(error, Stopped) else 'error: '}{text}", *getattr(error, "__notes__", [])]
    Console(stderr=True, soft_wrap=True).print("\n".join(lines), markup=False, highlight=False)
    sys.exit(status)


if __name__ == "__main__":
    main()
