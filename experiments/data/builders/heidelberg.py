"""Spiking Heidelberg Digits and Spiking Speech Commands from their own files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, check_classes, events_feature

UNITS = 700
"""Channels of the artificial cochlea."""

LONGEST = 60
"""Seconds that no recording reaches: times in another unit do."""


class Shd(SourceBuilder):
    """Digits spoken in English and German, as spikes of a cochlea model of 700 units (CC BY 4.0).

    Cramer, Stradmann, Schemmel and Zenke, IEEE TNNLS, 2022. The source is a folder with ``shd_train.h5`` and
    ``shd_test.h5``, unpacked.
    """

    VERSION = tfds.core.Version("1.0.0")
    prefix: ClassVar[str] = "shd"
    num_classes: ClassVar[int] = 20
    splits: ClassVar[dict[str, str]] = {"train": "train", "test": "test"}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described([str(label) for label in range(self.num_classes)], events=events_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        files = {split: self.source / f"{self.prefix}_{part}.h5" for split, part in self.splits.items()}
        for path in files.values():
            if not path.is_file():
                raise ValueError(f"source: there is no {path}; unpack {path.name}.zip or {path.name}.gz there.")
        for split, path in files.items():
            labels = _labels(path, self.num_classes)
            check_classes(self.source, split, map(str, labels), [str(label) for label in range(self.num_classes)])
        return {split: self._generate_examples(path) for split, path in files.items()}

    def _generate_examples(self, path: Path) -> Examples:
        labels = _labels(path, self.num_classes)
        for index, (events, label) in enumerate(zip(_recordings(path), labels, strict=True)):
            yield f"{index:06d}", {"events": events, "label": str(label)}


class Ssc(Shd):
    """Speech Commands, 35 words, as spikes of the same cochlea model (CC BY 4.0).

    The source is a folder with ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, unpacked.
    """

    VERSION = tfds.core.Version("1.0.0")
    prefix: ClassVar[str] = "ssc"
    num_classes: ClassVar[int] = 35
    splits: ClassVar[dict[str, str]] = {"train": "train", "validation": "valid", "test": "test"}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a file in the sets' layout.

    Raises:
      ImportError: h5py is missing.
      ValueError: the file cannot be read, or is not in this layout.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("HDF5 files are read by h5py: pip install 'bsojax[hdf5]'.") from error
    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError) as error:
        raise ValueError(
            f"source: {path} cannot be read as spikes/times, spikes/units and labels ({error})."
        ) from error


def _labels(path: Path, num_classes: int) -> np.ndarray:
    with _opened(path) as file:
        labels = np.asarray(file["labels"])
        if not len(file["spikes/times"]) == len(file["spikes/units"]) == len(labels):
            raise ValueError(f"source: {path}: times, units and labels are not of the same recordings.")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"source: {path}: labels are not in 0 .. {num_classes - 1}.")
    return labels


def _recordings(path: Path) -> Iterator[np.ndarray]:
    """Reads recordings one by one, as a file's spikes may be gigabytes: events [us, unit, 0, 0]."""
    with _opened(path) as file:
        for times, units in zip(file["spikes/times"], file["spikes/units"], strict=True):
            yield _events(path, times, units)


def _events(path: Path, times: np.ndarray, units: np.ndarray) -> np.ndarray:
    if len(times) != len(units):
        raise ValueError(f"source: {path}: times, units and labels are not of the same recordings.")
    if len(units) and not 0 <= units.min() <= units.max() < UNITS:
        raise ValueError(f"source: {path}: a spike is of none of {UNITS} units.")
    seconds = np.asarray(times, np.float64)
    if not np.all((seconds >= 0) & (seconds < LONGEST)):  # a bin before the first would be counted from the end
        raise ValueError(f"source: {path}: the time of a spike is not in 0 .. {LONGEST} seconds.")
    none = np.zeros(len(units))
    return np.stack([np.round(seconds * 1e6), units, none, none], axis=1).astype(np.int32)
