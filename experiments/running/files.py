"""Files that are whole on disk or absent, even if the process is killed at any moment."""

import json
import math
import os
from pathlib import Path
from typing import IO, Any


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people to read, all of it or nothing."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, all of it or nothing: a process that is killed leaves the file that was there before."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        _to_disk(file)
    partial.replace(path)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Appends a line of JSON; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line_of(value))
        _to_disk(file)


def line_of(value: dict[str, Any]) -> bytes:
    """Returns a value as a line of JSON."""
    # JSON knows no NaN: what was not finite is null.
    numbers = {
        key: None if isinstance(item, float) and not math.isfinite(item) else item for key, item in value.items()
    }
    return (json.dumps(numbers, allow_nan=False) + "\n").encode()


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
