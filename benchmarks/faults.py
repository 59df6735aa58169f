"""Faults tried on runs, and what became of them: ``python -m benchmarks.faults`` runs the tests, writes the page."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import environment

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "RELIABILITY.md"
TESTS = ("tests/test_faults.py", "tests/test_checkpoints.py", "tests/test_not_finite.py", "tests/test_processes.py")
REPORT = "BSOJAX_FAULT_REPORT"
"""The environment variable that tells the tests where to report; tests/faults.py reads it."""

TEXT = """# Runs that survive

Written by `python -m benchmarks.faults`, which runs {tests} and tabulates what they report.

`python -m experiments.train CONFIG --output runs/a --resume` starts the run in that folder, or goes on with it. What
follows is the same bits as if nothing had happened: signs, momentum, every other leaf of the state, and every record
in metrics.jsonl but its seconds. Give the flag from the start where a run may be interrupted.

- **What is saved.** After each evaluation, every `--checkpoint-minutes` in between, and on SIGTERM or Ctrl-C, a
  checkpoint goes into `checkpoints/`: signs at one bit each, momentum, real parameters, statistics, counters, the
  random key, the place in the data, the records and the config. The newest `--keep` stay, and with `--validation` the
  best one. Without held-out data no checkpoint is called best: that would be a choice made on test data.
- **Whole or not at all.** Orbax writes a checkpoint under another name and renames it when it is complete. Each leaf
  has a checksum, so has the description; names, dtypes and shapes are compared before anything is restored. What does
  not match is set aside as `damaged-...`, with the reason, and the one before is taken. If none is good the run does
  not begin again by itself: it says so and stops.
- **Stops.** The exit status is 143 after SIGTERM and 130 after Ctrl-C, as of a process that the signal ended: a
  scheduler that takes 0 for "done" starts the job again. A second signal ends the process at once. 1: the run could
  not go on, as on a full disk; the message names the last good checkpoint. 2: a setting, data or the folder is wrong;
  nothing was done.
- **Values that are not finite.** A step whose data, loss or gradients are not finite changes nothing and is counted
  as skipped; nothing is saved right after it. After `--max-skipped` such batches in a row the run stops.
- **One folder, one run.** The folder is locked while a process works in it; the lock goes with the process. A resumed
  run must have the settings and the data of the one before; what differs is named. Settings that do not change the
  result (devices, keep, minutes, control, where data lie) may differ.
- **Several processes.** One that dies takes the others of its run with it: they end when it has been silent for 100 s.
  Start all of them again with `--resume`.
- **Not covered.** The same bits need the same versions, kind of device and number of devices; with another number the
  run goes on with what rounding and its consequences change (docs/SCALING.md). Locks need a file system that has them,
  as network file systems mostly do.

## Tried

{table}

"Lost" is how many batches were trained again at most, each saved after every batch in these tests, by two processes
after every epoch; otherwise it is what was done since the last checkpoint. Data lost: {lost_data}. Records and states
at the end are those of a run that nothing happened to, bit for bit, in every row that ends a run.

With {versions}.
"""


def main(arguments: Sequence[str]) -> None:
    """Writes the result and the page from the report of a run of the tests; runs them where none is named.

    Args:
      arguments: the file into which the tests have reported, or nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(arguments[0]) if arguments else Path(folder) / "report.jsonl"
        if not arguments:
            command = [sys.executable, "-m", "pytest", "-m", "", *TESTS]  # slow ones too
            subprocess.run(command, cwd=ROOT, env={**os.environ, REPORT: str(report)}, check=True)
        rows = [json.loads(line) for line in report.read_text().splitlines()]
    rows.sort(key=lambda row: row["fault"])
    RESULT.write_text(json.dumps(environment() | {"result": rows}, indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULT.read_text())))


def page(content: dict[str, Any]) -> str:
    """Returns the page of a result."""
    head = "| fault | what happens | tried | survived | batches lost |\n| --- | --- | --- | --- | --- |\n"
    rows = [
        f"| {row['fault']} | {row['what']} | {row['tried']} | {row['survived']} | {row['lost']} |"
        for row in content["result"]
    ]
    total = {key: sum(row[key] for row in content["result"]) for key in ("tried", "survived")}
    rows.append(f"| **all** | | {total['tried']} | {total['survived']} | |")
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    tests = ", ".join(TESTS)
    lost = total["tried"] - total["survived"]
    table = head + "\n".join(rows)
    return TEXT.format(table=table, tests=tests, versions=versions, lost_data=f"{lost} of {total['tried']} times")


if __name__ == "__main__":
    main(sys.argv[1:])
