"""Prepares a data set for reading without TensorFlow: ``python -m experiments.prepare NAME [--source PATH]``."""

import json
import sys
from pathlib import Path

import tyro

from experiments.data.known import SETS
from experiments.data.loading import default_folder
from experiments.data.preparing import prepare


def main(arguments: list[str] | None = None) -> None:
    """The command line; what is wrong ends it with one message and status 2, and nothing half-prepared is left."""
    tyro.cli(_prepare, prog="python -m experiments.prepare", description=_description(), args=arguments)


def _prepare(name: tyro.conf.Positional[str], source: Path | None = None, data_dir: Path | None = None) -> None:
    """Prepares one set.

    Args:
      name: The set.
      source: The files that it is made of: a folder or an archive. Stock sets need none (imagenet2012: the folder with
        its two archives).
      data_dir: Where prepared sets lie. Default: TFDS_DATA_DIR, or ~/tensorflow_datasets.
    """
    try:
        prepared = prepare(name, default_folder(data_dir), source)
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
