"""Runs the benchmarks: ``make bench``, or ``python -m benchmarks NAME…`` for some of them."""

import importlib
import json
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from benchmarks import render
from benchmarks.environment import environment

Name = Literal["memory", "bits", "speed", "profile", "epoch", "forward"]
NAMES: tuple[Name, ...] = ("memory", "bits", "speed", "profile", "epoch", "forward")
RESULTS = Path("benchmarks") / "results"


def main(names: tyro.conf.Positional[tuple[Name, ...]] = NAMES) -> None:
    """Measures, writes benchmarks/results/NAME.json, and renders docs/BENCHMARKS.md with its pictures.

    Args:
      names: which benchmarks; without any, all but those of the peers (``make bench-peers``) and of an accelerator
        (``python -m benchmarks.accelerator``).
    """
    console = Console()
    for name in names:
        console.print(f"{name} ...")
        path = write(name, importlib.import_module(f"benchmarks.{name}").measure())
        console.print(f"{path}: written")
    render.main()


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Writes a result with the command, versions and device that made it; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(environment() | {"result": result}, indent=1) + "\n")
    return path


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks")
