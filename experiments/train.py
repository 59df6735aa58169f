"""Trains a network: ``python -m experiments.train CONFIG [options]``."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console

import bsojax
from experiments import curves, rules, run_folder
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.display import Bar, memory_table, result_table
from experiments.loop import Run, evaluate, prepare, train


def main(arguments: list[str] | None = None) -> None:
    """The command line; a bad setting ends it with one line and status 2 before anything is trained."""
    arguments = sys.argv[1:] if arguments is None else arguments
    config = tyro.extras.overridable_config_cli(
        CONFIGS, prog="python -m experiments.train", description=__doc__, args=arguments
    )
    name = next(argument for argument in arguments if argument in CONFIGS)
    console = Console()
    try:
        config.check()
        data = load(config.dataset, config.data_dir, config.num_steps)
        data = hold_out(data) if config.validation else data
        run = prepare(config, data)
        folder = run_folder.create(config, name)
    except (ValueError, TypeError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(2)
    execute(run, folder, console)


def execute(run: Run, folder: Path, console: Console) -> dict[str, Any]:
    """Trains a run and its control, fills the folder, prints the tables; returns the content of summary.json."""
    config, split = run.config, "validation" if run.config.validation else "test"
    label = rules.label_of(config)
    examples = f"{len(run.data.train):,} training and {len(run.data.test):,} {split} examples"
    console.print(f"{config.dataset}: {examples}, T = {config.num_steps}, seed {config.seed}, into {folder}")
    num_params = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    memory = bsojax.memory_report(run.state, model=run.model, x=run.frame)
    state, records, summary = _train(run, console, label, folder)
    run_folder.save_model(folder / "model.msgpack", state)
    results, histories = {label: summary}, {label: records}
    if config.control and not config.frozen:
        control = prepare(dataclasses.replace(config, frozen=True), run.data)
        _, histories["frozen control"], results["frozen control"] = _train(control, console, "frozen control", None)
    summary_file = {"split": split, "results": results, "memory": memory, **run_folder.environment()}
    run_folder.write_json(folder / "summary.json", summary_file)
    curves.draw(folder / "curves.png", histories, split)
    console.print(result_table(results, split))
    console.print(memory_table(memory, run.num_signs, num_params, config.batch_size))
    console.print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return summary_file


def _train(
    run: Run, console: Console, label: str, folder: Path | None
) -> tuple[bsojax.TrainState, list[dict[str, Any]], dict[str, Any]]:
    num_signs = run.num_signs
    with Bar(console, label, run) as bar:

        def on_record(record: dict[str, Any]) -> None:
            bar.record(record)
            if folder is not None:
                run_folder.append_record(folder, record)

        state, records = train(run, bar.chunk, on_record)
    flips = sum(record["flips"] for record in records)
    result = evaluate(run, state, run.data.test)
    return (
        state,
        records,
        {
            "accuracy": result["accuracy"],
            "loss": result["loss"],
            "train_accuracy": records[-1]["accuracy"],
            "flip_ratio": flips / (num_signs * records[-1]["updates"]),
            "flips_per_weight": flips / num_signs,
            "spike_rate": float(np.mean([record["spike_rate"] for record in records])),
            "skipped": sum(record["skipped"] for record in records),
            "seconds": sum(record["seconds"] for record in records),
        },
    )


if __name__ == "__main__":
    main()
