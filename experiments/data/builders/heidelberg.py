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
        classes = [str(label) for label in range(self.num_classes)]
        for split, path in files.items():
            with _opened(path) as file:
                check_classes(self.source, split, map(str, _labels(path, file, self.num_classes)), classes)
        return {split: self._generate_examples(path) for split, path in files.items()}

    def _generate_examples(self, path: Path) -> Examples:
        with _opened(path) as file:
            for index, label in enumerate(_labels(path, file, self.num_classes)):
                # One recording at a time: of SSC all of them are gigabytes.
                events = _events(path, index, file["spikes/times"][index], file["spikes/units"][index])
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
    """Opens an HDF5 file.

    Raises:
      ImportError: h5py is missing.
      ValueError: the file, or a part of it that is read within, is damaged or missing.
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


def _labels(path: Path, file: Any, num_classes: int) -> np.ndarray:
    """Returns the labels of a file.

    Raises:
      ValueError: they are not one for each recording, or there are labels that the set has not.
    """
    labels = np.asarray(file["labels"])
    if not len(file["spikes/times"]) == len(file["spikes/units"]) == len(labels):
        raise ValueError(f"source: {path}: times, units and labels are not of the same recordings.")
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"source: {path}: labels are not in 0 .. {num_classes - 1}.")
    return labels


def _events(path: Path, index: int, times: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Returns a recording as rows of time [us], unit, 0 and 0.

    Raises:
      ValueError: a spike lacks its time or unit, or has one that the set has not.
    """
    if len(times) != len(units):
        raise ValueError(f"source: {path}: recording {index} has {len(times)} times of {len(units)} spikes.")
    if len(units) and not 0 <= units.min() <= units.max() < UNITS:
        raise ValueError(f"source: {path}: a spike of recording {index} is of none of {UNITS} units.")
    microseconds = np.round(np.asarray(times, np.float64) * 1e6)
    if not np.all((microseconds >= 0) & (microseconds < 2**31)):
        raise ValueError(f"source: {path}: a spike of recording {index} is at no time in 0 .. 2147 s.")
    none = np.zeros(len(units))
    return np.stack([microseconds, units, none, none], axis=1).astype(np.int32)
