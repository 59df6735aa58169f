"""Draws and tabulates runs side by side: ``python -m experiments.report RUN... [--output FOLDER]``."""

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from experiments import curves, pages
from experiments.config import Config, as_json, flag
from experiments.running.files import write_bytes, write_json
from experiments.running.records import METRICS, read_records

Run = dict[str, Any]
"""A run as read: its folder's name, settings, records, and state."""

OWN = ("session", "output", "data_dir", "control", "seed")
"""Settings in which runs of one row of means may differ."""


def main(arguments: list[str] | None = None) -> None:
    """The command line; an error ends it with one message and status 2."""
    tyro.cli(_report, prog="python -m experiments.report", description=__doc__, args=arguments)


def _report(runs: tyro.conf.Positional[tuple[Path, ...]], output: Path | None = None) -> None:
    """Compares runs, finished or not.

    Args:
      runs: Folders of runs.
      output: A folder for report.md, report.json and report.png; None only prints the table.
    """
    try:
        if not runs:
            raise ValueError("RUN: name at least one folder of a run.")
        found = [read(folder) for folder in runs]
        if len({run["name"] for run in found}) < len(found):
            found = [{**run, "name": str(folder)} for run, folder in zip(found, runs, strict=True)]
        rows = [*map(row_of, found), *means(found)]
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            write_json(output / "report.json", rows)
            write_bytes(output / "report.md", f"{pages.table([*COLUMNS.values()], map(cells, rows))}\n".encode())
            splits = " or ".join(sorted({row["on"] for row in rows}))
            curves.draw(output / "report.png", {run["name"]: run["records"] for run in found if run["records"]}, splits)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    console = Console()
    for part in tables(rows):
        console.print(part)
    if output is not None:
        console.print(f"{output}: report.json, report.md, report.png", soft_wrap=True, highlight=False)


def read(folder: Path) -> Run:
    """Reads a run's folder.

    Raises:
      FileNotFoundError: there is no run in it.
      ValueError: a file is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"RUN: there is no run in {folder}: it holds no config.json.")
    try:
        about = json.loads(path.read_text())
        summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").exists() else None
        run = {
            "name": folder.name,
            "job": about["name"],
            "config": {**json.loads(json.dumps(as_json(Config(dataset="")))), **about["config"]},
            "records": read_records(folder),
            "control": read_records(folder / "control") if (folder / "control" / METRICS).exists() else [],
            "done": summary is not None,
            "revision": about.get("revision"),
        }
        row_of(run)  # a record may lack what the table shows
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"RUN: {folder} is damaged ({type(error).__name__}: {error}).") from error
    return run


def row_of(run: Run) -> dict[str, Any]:
    """Returns a row of the table: the results of a run so far."""
    records, config = run["records"], run["config"]
    last = records[-1] if records else {}
    control = run["control"][-1]["eval_accuracy"] if run["control"] else None
    return {
        "run": run["name"],
        "job": run["job"],
        "differs": differing(config),
        "seed": config["seed"],
        "state": "done" if run["done"] else f"epoch {last.get('epoch', 0):g} of {config['epochs']}",
        "on": "validation" if config["validation"] else "test",
        "accuracy": last.get("eval_accuracy"),
        "spread": None,
        "control": control,
        "loss": last.get("eval_loss"),
        "flips": sum(record["flips_per_batch"] for record in records) or None,
        "spikes": last.get("spike_rate"),
        "skipped": sum(record["skipped"] for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }


def differing(config: dict[str, Any], ignored: Sequence[str] = (*OWN, "validation")) -> str:
    """Returns as text which settings of a run differ from the defaults."""
    usual = json.loads(json.dumps(as_json(Config(dataset=""))))
    fields = [field for field in config if field not in ignored and config[field] != usual.get(field)]
    return ", ".join(f"{flag(field)} {config[field]}" for field in fields if field not in ("dataset", "channels"))


def means(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns a row of means for every setting that was run to its end with several seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["done"]:
            kept = {key: value for key, value in run["config"].items() if key not in OWN}
            groups.setdefault(json.dumps(kept, sort_keys=True), []).append(row_of(run))
    found = []
    for group in groups.values():
        if len({row["seed"] for row in group}) < 2:
            continue
        accuracies = [row["accuracy"] for row in group]
        numbers = {
            key: statistics.fmean(row[key] for row in group)
            for key in ("accuracy", "loss", "flips", "spikes", "seconds")
            if all(row[key] is not None for row in group)
        }
        controls = [row["control"] for row in group if row["control"] is not None]
        found.append(
            dict.fromkeys(group[0])
            | {"run": f"mean of {len(group)}", "job": group[0]["job"], "differs": group[0]["differs"]}
            | {"on": group[0]["on"], "skipped": sum(row["skipped"] for row in group), "state": "done"}
            | {"control": statistics.fmean(controls) if controls else None, "spread": statistics.stdev(accuracies)}
            | numbers
        )
    return found


COLUMNS = {
    "run": "run",
    "job": "config",
    "differs": "settings",
    "seed": "seed",
    "state": "state",
    "on": "evaluated on",
    "accuracy": "accuracy",
    "control": "frozen control",
    "loss": "loss",
    "spikes": "spike rate",
    "skipped": "skipped",
    "seconds": "seconds",
}
"""The columns of the table and their heads."""


def cells(row: dict[str, Any]) -> list[str]:
    """Returns a row as text."""

    def shown(key: str) -> str:
        value = row[key]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "" if value is None else "not finite"
        if key in ("accuracy", "control"):
            spread = f" ± {100 * row['spread']:.2f}" if key == "accuracy" and row["spread"] is not None else ""
            return f"{100 * value:.2f}{spread} %"
        return {"loss": "{:.3f}", "spikes": "{:.3f}", "seconds": "{:.1f}"}.get(key, "{}").format(value)

    return [shown(key) for key in COLUMNS]


def tables(rows: Sequence[dict[str, Any]], beside: int = 4) -> list[Table]:
    """Returns the tables for a terminal, one column per run and some runs side by side, of each run's last record."""
    made = []
    for start in range(0, len(rows), beside):
        part = Table(title="Runs, at their last record" if start == 0 else None)
        part.add_column("")
        shown = [cells(row) for row in rows[start : start + beside]]
        for run in shown:
            part.add_column(run[0], justify="right", overflow="fold")
        for place, head in list(enumerate(COLUMNS.values()))[1:]:
            part.add_row(head, *(run[place] for run in shown))
        made.append(part)
    return made


if __name__ == "__main__":
    main()
