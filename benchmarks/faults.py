"""Faults tested on runs, and the outcomes: ``python -m benchmarks.faults`` runs the tests."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, save
from experiments.pages import table

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/test_faults.py", "tests/test_checkpoints.py", "tests/test_not_finite.py", "tests/test_processes.py")
REPORT = "BSOJAX_FAULT_REPORT"
"""The environment variable that names the file for the tests' report; tests/faults.py reads it."""


def main(arguments: Sequence[str]) -> None:
    """Writes the result from the report of a run of the tests; runs the tests if no report is named.

    Args:
      arguments: the file into which the tests have reported, or nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(arguments[0]) if arguments else Path(folder) / "report.jsonl"
        if not arguments:
            command = [sys.executable, "-m", "pytest", *TESTS]
            subprocess.run(command, cwd=ROOT, env={**os.environ, REPORT: str(report)}, check=True)
        rows = [json.loads(line) for line in report.read_text().splitlines()]
    save(ROOT / RESULTS / "faults.json", sorted(rows, key=lambda row: row["fault"]))


def tell(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields what the page says about a result."""
    tried, survived = (sum(row[key] for row in rows) for key in ("tried", "survived"))
    lines = [[str(row[key]) for key in ("fault", "what", "tried", "survived", "lost")] for row in rows]
    lines.append(["**all**", "", str(tried), str(survived)])
    yield table(("fault", "what happens", "tried", "survived", "batches lost"), lines)
    yield (
        '"Lost" is the largest number of batches that were trained again. These tests save after every batch, those of '
        "two processes after every epoch; in general it is what was done since the last checkpoint. Data were lost "
        f"{tried - survived} of {tried} times. In every row that ends a run, records and states at the end are bit for "
        "bit those of an undisturbed run."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
