"""Runs the benchmarks: ``make bench``, or ``python -m benchmarks NAME…`` for some of them."""

import importlib
from typing import Literal, get_args

import tyro
from rich.console import Console

from benchmarks import render
from benchmarks.measure import RESULTS, save

Name = Literal["memory", "bits", "speed", "profile", "epoch", "forward", "popcount", "edge"]
NAMES: tuple[Name, ...] = get_args(Name)


def main(names: tyro.conf.Positional[tuple[Name, ...]] = NAMES) -> None:
    """Measures, writes benchmarks/results/NAME.json, and renders the pages with their pictures.

    Args:
      names: which benchmarks; without any, all but those of the peers (``make bench-peers``) and of an accelerator
        (``python -m benchmarks.accelerator``).
    """
    console = Console()
    for name in names:
        console.print(f"{name} ...")
        save(RESULTS / f"{name}.json", importlib.import_module(f"benchmarks.{name}").measure())
    render.main()


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks")
