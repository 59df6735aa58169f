"""Runs the studies and renders docs/RESULTS.md: ``python -m experiments.evidence``; it can be stopped and resumed."""

import os

import tyro
from rich.console import Console

from experiments.evidence import runner
from experiments.evidence.measure import Job
from experiments.evidence.studies import PLAN, path_of


def main(only: tuple[str, ...] = (), workers: int = os.cpu_count() or 1) -> None:
    """Runs the missing runs of each study, in order.

    Args:
      only: studies to run, as STUDY or STUDY:CONFIG (for example rivals:digits); none: all.
      workers: processes, each on its own core.
    """
    console = Console()
    known = {f"{name}:{config}" for name, (_, configs) in PLAN.items() for config in configs} | set(PLAN)
    if set(only) - known:
        raise SystemExit(f"only: there is no study {sorted(set(only) - known)}; choose from {sorted(known)}.")
    if workers < 1:
        raise SystemExit(f"workers: must be at least 1, got {workers}.")
    for name, (jobs, configs) in PLAN.items():
        for config in configs:
            if not only or name in only or f"{name}:{config}" in only:
                done: list[Job] = []
                while (wanted := jobs(config)) != done:  # some rows take settings over that the runs before choose
                    runner.run(wanted, path_of(name, config), console, workers)
                    done = wanted


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.evidence")
