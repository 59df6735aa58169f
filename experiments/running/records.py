"""The records of a training in metrics.jsonl, one per line."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.running.files import append_line, line_of, write_bytes

METRICS = "metrics.jsonl"


def append_record(folder: Path, record: dict[str, Any]) -> None:
    """Appends a line to metrics.jsonl; it is on disk when this returns."""
    append_line(folder / METRICS, record)


def write_records(folder: Path, records: Iterable[dict[str, Any]]) -> None:
    """Makes metrics.jsonl hold only these records, for example when a run resumes from before its last lines."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / METRICS, b"".join(line_of(record) for record in records))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl; a last line that was cut off by a kill is left out.

    Raises:
      ValueError: another line is damaged.
    """
    path = folder / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append({key: math.nan if value is None else value for key, value in json.loads(line).items()})
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}: line {number} is damaged ({error}).") from error
    return records
