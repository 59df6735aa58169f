"""CIFAR-10 from as many of its parts as are there."""

from pathlib import Path
from typing import Any

from experiments.data import SETS, DataSet, MemorySplit
from experiments.data.parts import SPLITS, read_available
from experiments.data.splits import check_examples


def read_images(folder: Path) -> tuple[DataSet, dict[str, Any]]:
    """Returns the data set, and how many images and parts of each split there are, as JSON values.

    Raises:
      FileNotFoundError: there is no part of a split.
      ValueError: a part is corrupt, or its labels are none of CIFAR-10's.
    """
    known, splits = SETS["cifar10"], []
    found: dict[str, Any] = {}
    for split in SPLITS:
        x, y, parts = read_available(folder, split)
        check_examples(x, y, known.num_classes, name=f"{folder} {split} ")
        splits.append(MemorySplit(x, y))
        found |= {split: len(x), f"{split} parts": parts}
    return DataSet("cifar10", splits[0], splits[1], known.num_classes, known.front_end), found
