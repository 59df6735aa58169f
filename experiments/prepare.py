"""Prepares a data set for reading without TensorFlow: ``python -m experiments.prepare NAME [--source PATH]``."""

import json
import sys
from pathlib import Path

import tyro

from experiments.data.known import SETS
from experiments.data.loading import default_folder, load
from experiments.data.parts import write_parts
from experiments.data.preparing import prepare
from experiments.data.splits import MemorySplit


def main(arguments: list[str] | None = None) -> None:
    """The command line; what is wrong ends it with one message and status 2, and nothing half-prepared is left."""
    tyro.cli(_prepare, prog="python -m experiments.prepare", description=_description(), args=arguments)


def _prepare(
    name: tyro.conf.Positional[str],
    source: Path | None = None,
    data_dir: Path | None = None,
    parts: Path | None = None,
    num_steps: int = 1,
) -> None:
    """Prepares one set.

    Args:
      name: The set.
      source: The files that it is made of: a folder or an archive. Stock sets need none (imagenet2012: the folder with
        its two archives).
      data_dir: Where prepared sets lie. Default: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      parts: Write the set as plain numpy files into this folder too, for a machine without TensorFlow Datasets; there
        they go into DATA_DIR/NAME.
      num_steps: Time bins of the parts of event sets.
    """
    try:
        prepared = prepare(name, default_folder(data_dir), source)
        if parts is not None:
            data = load(name, data_dir, num_steps)
            if not (isinstance(data.train, MemorySplit) and isinstance(data.test, MemorySplit)):
                raise ValueError(f"--parts: '{name}' is larger than memory; bring its prepared folder instead.")
            files = write_parts(parts, {"train": data.train, "test": data.test})
            print(f"{parts}: {len(files)} files, {sum(file.stat().st_size for file in files):,} bytes")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    splits = json.loads((prepared / "dataset_info.json").read_text())["splits"]
    counts = ", ".join(f"{sum(map(int, split['shardLengths'])):,} {split['name']}" for split in splits)
    print(f"{name}: {counts} examples in {prepared}")


def _description() -> str:
    stock = ", ".join(name for name, known in SETS.items() if known.stock)
    ours = "; ".join(f"{name} from {known.source}" for name, known in SETS.items() if known.source)
    return f"{__doc__}\n\nStock sets, with TensorFlow and a network: {stock}. Ours, with --source: {ours}."


if __name__ == "__main__":
    main()
