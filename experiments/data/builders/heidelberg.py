"""Spiking Heidelberg Digits and Spiking Speech Commands from their own files."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, check_classes, events_feature

UNITS = 700
"""Channels of the artificial cochlea."""


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
            _, labels = _read(path, self.num_classes)
            check_classes(self.source, split, map(str, labels), [str(label) for label in range(self.num_classes)])
        return {split: self._generate_examples(path) for split, path in files.items()}

    def _generate_examples(self, path: Path) -> Examples:
        recordings, labels = _read(path, self.num_classes)
        for index, (events, label) in enumerate(zip(recordings, labels, strict=True)):
            yield f"{index:06d}", {"events": events, "label": str(label)}


class Ssc(Shd):
    """Speech Commands, 35 words, as spikes of the same cochlea model (CC BY 4.0).

    The source is a folder with ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``, unpacked.
    """

    VERSION = tfds.core.Version("1.0.0")
    prefix: ClassVar[str] = "ssc"
    num_classes: ClassVar[int] = 35
    splits: ClassVar[dict[str, str]] = {"train": "train", "validation": "valid", "test": "test"}


def _read(path: Path, num_classes: int) -> tuple[Any, np.ndarray]:
    """Returns what makes the recordings one after another, events [us, unit, 0, 0], and their labels.

    Raises:
      ImportError: h5py is missing.
      ValueError: the file is not in the sets' layout, or holds units or labels that they have not.
    """
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("HDF5 files are read by h5py: pip install 'bsojax[hdf5]'.") from error
    try:
        with h5py.File(path) as file:
            times, units, labels = list(file["spikes/times"]), list(file["spikes/units"]), np.asarray(file["labels"])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"source: {path} cannot be read as spikes/times, spikes/units and labels ({error})."
        ) from error
    if not len(times) == len(units) == len(labels) or any(len(t) != len(u) for t, u in zip(times, units, strict=True)):
        raise ValueError(f"source: {path}: times, units and labels are not of the same recordings.")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"source: {path}: labels are not in 0 .. {num_classes - 1}.")
    return (_events(path, *pair) for pair in zip(times, units, strict=True)), labels


def _events(path: Path, times: np.ndarray, units: np.ndarray) -> np.ndarray:
    if len(units) and not 0 <= units.min() <= units.max() < UNITS:
        raise ValueError(f"source: {path}: a spike is of none of {UNITS} units.")
    microseconds = np.round(np.asarray(times, np.float64) * 1e6)
    none = np.zeros(len(units))
    return np.stack([microseconds, units, none, none], axis=1).astype(np.int32)
