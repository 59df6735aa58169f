"""Compiles for TPUs and writes benchmarks/results/tpu.json: ``make tpu``, or ``python -m benchmarks.tpu``."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.measure import RESULTS, save
from benchmarks.tpu.jobs import Job, jobs
from experiments.environment import PACKAGES, versions

LONGEST = 300
"""Characters of an error that are kept."""

FILE = RESULTS / "tpu.json"
COMMAND = "python -m benchmarks.tpu"
"""The command that makes the whole file, however often it was started."""

WITHOUT_TPU = {
    "JAX_PLATFORMS": "cpu",
    "TPU_WORKER_HOSTNAMES": "localhost",  # or libtpu would ask the network for the hosts of this one
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # one process at a time may have a TPU; these have none
}
"""What libtpu needs in the environment where there is no TPU."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Training steps compiled for TPUs that are not present; what is already in the file is not compiled again.

    Attributes:
      networks: only jobs of these networks; all without any.
      at_most: seconds of one compilation.
      count: how many jobs at most; all of them by default.
      output: the JSON file.
      texts: a folder for the compiled programs; by default they are not kept.
    """

    networks: tuple[str, ...] = ()
    at_most: float = 7200.0
    count: int | None = None
    output: Path = FILE
    texts: Path | None = None


def main(options: Options) -> None:
    """Compiles what is missing, one job after the other, and writes the file after each."""
    os.environ.update(WITHOUT_TPU)  # of this process too: the head of the file asks JAX for its devices
    console = Console()
    rows = found(options.output)
    for job in list(missing(rows, options.networks))[: options.count]:
        console.print(f"{job} ...", highlight=False, soft_wrap=True)
        rows.append({"job": dataclasses.asdict(job), **compiled(job, options)})
        console.print(summary(rows[-1]), highlight=False, soft_wrap=True)
        write(options.output, rows)


def found(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file; none where there is no file."""
    return json.loads(path.read_text())["result"]["rows"] if path.exists() else []


def missing(rows: list[dict[str, Any]], networks: tuple[str, ...] = ()) -> Iterator[Job]:
    """Yields the jobs, of some networks or all, that have no row."""
    done = [row["job"] for row in rows]
    for job in jobs():
        if dataclasses.asdict(job) not in done and (not networks or job.network in networks):
            yield job


def compiled(job: Job, options: Options) -> dict[str, Any]:
    """Returns the output of a separate process for a job; if it fails, the error."""
    script = [sys.executable, "-m", "benchmarks.tpu.compile", json.dumps(dataclasses.asdict(job))]
    if options.texts is not None:
        options.texts.mkdir(parents=True, exist_ok=True)
        script.append(str(options.texts / f"{text_name(job)}.hlo.gz"))
    try:
        done = subprocess.run(script, capture_output=True, text=True, timeout=options.at_most)
    except subprocess.TimeoutExpired:
        return {"error": f"not compiled within {options.at_most:g} seconds"}
    if done.returncode:
        return {"error": raised(done.stderr) or f"ended with status {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def raised(log: str) -> str:
    """Returns the last error of a log, cut if it is long; without one, the last line."""
    lines = log.strip().splitlines()
    starts = [place for place, line in enumerate(lines) if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return " ".join(lines[starts[-1] :])[:LONGEST] if starts else "".join(lines[-1:])[:LONGEST]


def text_name(job: Job) -> str:
    """Returns a name of a job that a file may have: what differs from the simplest one."""
    values = (str(value) for name, value in dataclasses.asdict(job).items())
    return "_".join(values).translate(str.maketrans(" :,", "---"))


def summary(row: dict[str, Any]) -> str:
    """Returns the line that is printed for a row."""
    if "error" in row:
        return f"  {row['error']}"
    if "arguments" not in row:
        return f"  {row['required']:,} MiB required"
    return f"  {row['arguments'] + row['temporaries']:,} bytes, compiled in {row['seconds']['compile']} s"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows at once, replacing those before."""
    whole = path.with_suffix(".part")
    head = {"command": COMMAND, "versions": versions((*PACKAGES, "libtpu")), "device": "a CPU, without a TPU"}
    save(whole, {"rows": rows}, **head)
    whole.replace(path)


if __name__ == "__main__":
    main(tyro.cli(Options, prog=COMMAND))
