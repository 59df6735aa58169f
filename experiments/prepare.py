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
    """The command line; an error ends it with one message and status 2, and leaves nothing half-prepared."""
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
      name: The data set.
      source: The files from which it is made: a folder or an archive. Stock sets need none, except imagenet2012: the
        folder with its two archives.
      data_dir: Folder of prepared sets. Default: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      parts: Also write the set as plain numpy files into this folder, for a machine without TensorFlow Datasets; copy
        them to DATA_DIR/NAME there.
      num_steps: Number of time bins of event sets in these files.
    """
    try:
        prepared = prepare(name, default_folder(data_dir), source)
        if parts is not None:
            data = load(name, data_dir, num_steps)
            if not (isinstance(data.train, MemorySplit) and isinstance(data.test, MemorySplit)):
                raise ValueError(f"--parts: '{name}' is larger than memory; copy its prepared folder instead.")
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
    needs = "which need TensorFlow and a network connection"
    return f"{__doc__}\n\nStock sets, {needs}: {stock}. Our own sets, with --source: {ours}."


if __name__ == "__main__":
    main()
