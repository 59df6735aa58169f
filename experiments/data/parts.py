"""A data set as plain numpy files in parts, for machines without TensorFlow Datasets and without a network."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.data.splits import MemorySplit

SPLITS = ("train", "test")


def write_parts(folder: Path, splits: dict[str, MemorySplit], largest: int = 16 * 2**20) -> list[Path]:
    """Writes the stored examples of each split as compressed ``SPLIT-NNN-of-NNN.npz`` with arrays x and y.

    Args:
      folder: where the files go; it is made.
      splits: "train" and "test", in memory.
      largest: bytes of the examples of one part before compression, at most (one example at least).

    Returns:
      The files.

    Raises:
      FileExistsError: the folder holds parts already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.npz")):
        raise FileExistsError(f"--parts: {folder} holds parts already; remove them or choose another folder.")
    files = []
    for name in SPLITS:
        x, y = np.asarray(splits[name].x), np.asarray(splits[name].y)
        count = min(len(x), math.ceil(x.nbytes / largest))
        for index, (part_x, part_y) in enumerate(zip(np.array_split(x, count), np.array_split(y, count), strict=True)):
            files.append(folder / f"{name}-{index:03d}-of-{count:03d}.npz")
            np.savez_compressed(files[-1], x=part_x, y=part_y)
    return files


def has_parts(folder: Path) -> bool:
    """Whether a folder holds parts of a data set."""
    return any(folder.glob("*-of-*.npz"))


def read_parts(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads what write_parts wrote: the stored examples and the labels of a split.

    Raises:
      ValueError: a part is missing or corrupt; it is named.
    """
    files = sorted(folder.glob(f"{split}-*-of-*.npz"))
    count = int(files[0].stem.rpartition("-")[2]) if files else 1
    wanted = [folder / f"{split}-{index:03d}-of-{count:03d}.npz" for index in range(count)]
    if files != wanted:
        missing = next((path for path in wanted if path not in files), files[-1] if files else wanted[0])
        raise ValueError(f"{folder}: the parts of '{split}' are not complete; check {missing.name}.")
    return _joined(files)


def read_available(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Reads the parts of a split that are there; use it where all of them are too large to bring.

    Returns:
      The stored examples, the labels, and in words how many of how many parts there are.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a part is corrupt; it is named.
    """
    files = sorted(folder.glob(f"{split}-*-of-*.npz"))
    if not files:
        raise FileNotFoundError(f"{folder}: there is no part of '{split}'.")
    x, y = _joined(files)
    return x, y, f"{len(files)} of {int(files[0].stem.rpartition('-')[2])}"


def _joined(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for path in files:
        try:
            with path.open("rb") as file, np.load(file) as part:  # numpy leaves a damaged file open
                parts.append((part["x"], part["y"]))
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise ValueError(f"{path} is corrupt ({error}); copy it again.") from error
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
