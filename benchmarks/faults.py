"""Faults tried on runs, and what became of them: ``python -m benchmarks.faults`` runs the tests that try them."""

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
"""The environment variable that tells the tests where to report; tests/faults.py reads it."""


def main(arguments: Sequence[str]) -> None:
    """Writes the result from the report of a run of the tests; runs them where none is named.

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
    """Gives out what the page says of a result."""
    tried, survived = (sum(row[key] for row in rows) for key in ("tried", "survived"))
    lines = [[str(row[key]) for key in ("fault", "what", "tried", "survived", "lost")] for row in rows]
    lines.append(["**all**", "", str(tried), str(survived)])
    yield table(("fault", "what happens", "tried", "survived", "batches lost"), lines)
    yield (
        '"Lost" is how many batches were trained again at most, each saved after every batch in these tests, by two '
        "processes after every epoch; otherwise it is what was done since the last checkpoint. Data lost: "
        f"{tried - survived} of {tried} times. Records and states at the end are those of a run that nothing happened "
        "to, bit for bit, in every row that ends a run."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
