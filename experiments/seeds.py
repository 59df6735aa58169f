"""Repeats a config over seeds and rules: ``python -m experiments.seeds digits --output docs/results/digits.json``."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from experiments import run_folder
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.display import Bar
from experiments.loop import prepare, train

ROWS: dict[str, dict[str, Any]] = {
    "T-BSO, calibrated": {},
    "T-BSO, paper": {"preset": "paper"},
    "BSO, paper": {"preset": "paper", "optimizer": "bso"},
    "frozen signs": {"frozen": True},
    "T-BSO, calibrated, every layer binary": {"binary_ends": True},
    "T-BSO, paper, every layer binary": {"binary_ends": True, "preset": "paper"},
    "frozen signs, every layer binary": {"binary_ends": True, "frozen": True},
}
"""The rows of the table: what each changes in the config."""


def main(
    config: tyro.conf.Positional[str],
    /,
    output: Path,
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int | None = None,
    validation: bool = False,
    data_dir: Path | None = None,
) -> None:
    """Trains every rule with every seed and writes the results as JSON; prints them as a Markdown table.

    Args:
      config: the config's name.
      output: the JSON file.
      seeds: the seeds.
      epochs: passes over the training images; None: the config's.
      validation: evaluate on held-out training images, to choose settings.
      data_dir: where prepared data sets lie.
    """
    console = Console()
    base = dataclasses.replace(CONFIGS[config][1], validation=validation, data_dir=data_dir)
    base = base if epochs is None else dataclasses.replace(base, epochs=epochs)
    data = load(base.dataset, data_dir)
    data = hold_out(data) if validation else data
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    for name, changes in ROWS.items():
        for seed in seeds:
            run = prepare(dataclasses.replace(base, seed=seed, **changes), data)
            with Bar(console, f"{name}, seed {seed}", run) as bar:
                _, records = train(run, bar.batch, lambda record: None)
            rows[name].append({"seed": seed, **records[-1], "seconds": sum(record["seconds"] for record in records)})
            console.print(f"{name}, seed {seed}: {records[-1]['eval_accuracy']:.2%}")
    result = {
        "config": run_folder.as_json(base),
        "split": "validation" if validation else "test",
        "rows": {name: {**_statistics(runs), "runs": runs} for name, runs in rows.items()},
        **run_folder.environment(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(output, result)
    console.print(markdown(result), markup=False, highlight=False, soft_wrap=True)


def markdown(result: dict[str, Any]) -> str:
    """The results as a Markdown table: mean, spread and range over the seeds, at the last epoch."""
    lines = [f"| rule | {result['split']} accuracy, mean ± standard deviation | lowest to highest |", "|---|---|---|"]
    for name, row in result["rows"].items():
        low, high = row["lowest"], row["highest"]
        lines.append(f"| {name} | {row['mean']:.2%} ± {row['deviation']:.2%} | {low:.2%} to {high:.2%} |")
    return "\n".join(lines)


def _statistics(runs: list[dict[str, Any]]) -> dict[str, float]:
    values = np.array([run["eval_accuracy"] for run in runs])
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "deviation": deviation, "lowest": values.min(), "highest": values.max()}


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.seeds")
