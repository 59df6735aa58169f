"""Runs ours and the peers in turn and compares them: ``make bench-peers``; see the package's docstring for the job."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.measure import QUIET, RESULTS, rotated, save, wait_until_idle
from benchmarks.peers import install, job, table
from benchmarks.peers.contenders import OURS, PEERS, Contender

ROOT = Path(__file__).resolve().parents[2]
MIN_STEPS = 7

RETURNS = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
"""The environment in which glibc returns each larger array when it is freed. It would else keep up to half of what
PyTorch has used, which then counts as resident."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Time and memory of one training step in bsojax and its peers: ratios first, written as JSON.

    Attributes:
      memory: measure memory instead of time, and write peers-memory.json; the C library then returns what is freed at
        once, which costs time.
      num_steps: the numbers of time steps, T.
      rounds: how often each process is run; all contenders run once before any runs again.
      steps: how many training steps a process times, at least 7.
      only: parts of the names of those to run beside ours; all without any.
      output: the JSON file; None: benchmarks/results/peers.json or peers-memory.json.
      peers: the folder of the peers' environment, made if missing.
      timeout: seconds after which a process counts as failed.
      patience: seconds to wait before each process for the machine to become idle.
      attempts: how often a process that others disturbed is run; the least disturbed one counts.
    """

    memory: bool = False
    num_steps: tuple[int, ...] = (1, 4, 16, 32, 64)
    rounds: int = 3
    steps: int = MIN_STEPS
    only: tuple[str, ...] = ()
    output: Path | None = None
    peers: Path = Path(".venv-peers")
    timeout: float = 600.0
    patience: float = 20.0
    attempts: int = 2


class Failed(Exception):
    """A contender's process that left no record."""


def main(options: Options) -> None:
    """Installs, runs, compares, prints and writes."""
    if options.steps < MIN_STEPS or options.rounds < 1 or not options.num_steps or min(options.num_steps) < 1:
        raise SystemExit(f"error: needs --steps >= {MIN_STEPS}, --rounds >= 1 and --num-steps >= 1.")
    console = Console()

    def wanted(contender: Contender) -> bool:
        return not options.only or any(part in contender.name for part in options.only)

    console.print(f"peers' environment: {options.peers}")
    installed = install.prepare(options.peers)
    for requirement, error in installed.items():
        console.print(f"not installed: {requirement}: {error}", markup=False)
    chosen = [one for one in (*OURS, *PEERS) if one.ours or wanted(one)]
    records: list[dict[str, Any]] = []
    failures: dict[tuple[str, int], str] = {}
    for turn, contender, num_steps in _order(chosen, options):
        if (contender.name, num_steps) in failures:
            continue
        where = {"contender": contender.name, "num_steps": num_steps, "round": turn}
        try:
            record = _least_disturbed(contender, num_steps, options)
        except Failed as error:
            failures[contender.name, num_steps] = str(error)
            console.print(f"failed: {contender.name}, T = {num_steps}: {error}", markup=False)
            continue
        records.append(where | record)
        milliseconds = 1e3 * sorted(record["seconds"])[len(record["seconds"]) // 2]
        console.print(
            f"round {turn + 1}/{options.rounds}, T = {num_steps}, {contender.name}: {milliseconds:.1f} ms, "
            f"{record['peak_mib']:.0f} MiB, other processes on {record['others']:.1f} cores",
            markup=False,
            highlight=False,
        )
    results = _results(chosen, options, records) | {
        "not_installed": installed,
        "failures": [{"contender": name, "num_steps": t, "error": error} for (name, t), error in failures.items()],
    }
    output = options.output or RESULTS / ("peers-memory.json" if options.memory else "peers.json")
    save(output, results)
    ratios = (table.ratio_table("time, ours / peer", results["time"]),) if "time" in results else ()
    for part in (*ratios, table.absolute_table(results["appendix"]["rows"])):
        console.print(part, markup=False, highlight=False, soft_wrap=True)
    if results["disturbed"]:
        console.print(f"warning: {results['disturbed']}")
    console.print(f"{output}")


def _order(chosen: list[Contender], options: Options) -> Iterator[tuple[int, Contender, int]]:
    """Every process to run: round, contender, T. What is compared runs within one stretch of time."""
    by_name = {contender.name: contender for contender in chosen}
    for turn in range(options.rounds):
        for num_steps in options.num_steps:
            for name in rotated(list(by_name), turn):
                if by_name[name].refusal(num_steps) is None:
                    yield turn, by_name[name], num_steps


def _least_disturbed(contender: Contender, num_steps: int, options: Options) -> dict[str, Any]:
    """The record of the attempt that others disturbed least. Its load decides, not its time: that would be a choice."""
    records: list[dict[str, Any]] = []
    while len(records) < max(options.attempts, 1):
        wait_until_idle(options.patience)
        records.append(_run(contender, num_steps, options))
        if records[-1]["others"] < QUIET:
            break
    return min(records, key=lambda record: record["others"])


def _run(contender: Contender, num_steps: int, options: Options) -> dict[str, Any]:
    python = Path(sys.executable) if contender.here else install.python_of(options.peers.absolute())
    steps = 1 if options.memory else options.steps  # after the first, memory stays as it is
    script = ["-m", f"benchmarks.peers.{contender.module}", contender.variant, str(num_steps), str(steps)]
    try:
        done = subprocess.run(
            [str(python), *script],
            cwd=ROOT,
            env=os.environ | (RETURNS if options.memory else {}),
            capture_output=True,
            text=True,
            timeout=options.timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(type(error).__name__) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Failed(last.replace(f"{ROOT}/", ""))
    return json.loads(done.stdout.strip().splitlines()[-1])


def _results(chosen: list[Contender], options: Options, records: list[dict[str, Any]]) -> dict[str, Any]:
    ours = [contender.name for contender in chosen if contender.ours]
    disturbed = sum(record["others"] >= QUIET for record in records)
    return {
        "disturbed": f"{disturbed} of {len(records)} runs shared the machine with other work (see others). "
        "PyTorch suffers most from that, and the ratios flatter JAX: run it again on an idle machine."
        if disturbed and not options.memory
        else None,
        "job": {
            "batch": job.BATCH,
            "image": [job.IMAGE, job.IMAGE, 1],
            "channels": job.CHANNELS,
            "classes": job.CLASSES,
            "dtype": "float32",
        },
        "protocol": {"rounds": options.rounds, "timed steps": options.steps, "spread": "over rounds"},
        "packages": {record["contender"]: record["versions"] for record in records},
        # Where memory is measured, the C library slows PyTorch.
        **({} if options.memory else {"time": table.compare(records, ours, table.TIME)}),
        "not_run": [
            {"contender": one.name, "num_steps": num_steps, "why": why}
            for one in chosen
            for num_steps in options.num_steps
            if (why := one.refusal(num_steps)) is not None
        ],
        "appendix": {"title": "CPU, this machine", "rows": table.absolute(records)},
        "records": [{key: value for key, value in record.items() if key != "versions"} for record in records],
    }


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
