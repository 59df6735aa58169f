"""Reading a prepared data set, or saying at once what to do if it is missing."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import parts
from experiments.data.data_sets import DataSet
from experiments.data.known import SETS, KnownSet
from experiments.data.preparing import how_to_prepare, prepare, prepared_folder
from experiments.data.splits import MemorySplit, Split, check_examples, check_readable
from experiments.data.streams import StreamSplit

THREADS = min(4, os.cpu_count() or 1)
"""Chunks that are read in parallel: unpacking does not hold the interpreter."""


def load(name: str, data_dir: Path | None = None, num_steps: int = 1) -> DataSet:
    """Reads a prepared data set; a missing one that needs neither network nor source is prepared first.

    Never touches the network: a set that is not on this machine is an error that says how to get it. Parts that
    ``experiments.prepare --parts`` wrote take precedence, and need only numpy.

    Args:
      name: a key of SETS.
      data_dir: folder of prepared sets; None: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      num_steps: time bins of recordings of events; other sets do not depend on it.

    Raises:
      ValueError: the name is unknown, there is no time step, or the set's values are unfit.
      FileNotFoundError: the set has not been prepared on this machine, or not in a format readable here.
    """
    if name not in SETS:
        raise ValueError(f"dataset: there is no '{name}'; choose one of {', '.join(sorted(SETS))}.")
    if num_steps < 1:
        raise ValueError(f"num_steps: must be at least 1, got {num_steps}.")
    folder, known = default_folder(data_dir), SETS[name]
    if parts.has_parts(folder / name):
        held = [_split_of_parts(folder / name, split, known, num_steps) for split in parts.SPLITS]
        return DataSet(name, held[0], held[1], known.num_classes, known.front_end)
    prepared = prepared_folder(name, folder)
    if prepared is None and known.builder is not None and not known.source:
        prepared = prepare(name, folder, quiet=True)
    if prepared is None:
        raise FileNotFoundError(
            f"dataset: '{name}' is not prepared in {folder} (--data-dir). " + how_to_prepare(name, folder)
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(prepared))
    if builder.info.file_format.value != "array_record":
        raise FileNotFoundError(
            f"dataset: '{name}' in {prepared} is stored as {builder.info.file_format.value}, which cannot be read "
            f"without TensorFlow. Move it away. " + how_to_prepare(name, folder)
        )
    train, test = (_split(builder, name, split, known, num_steps) for split in ("train", known.test_split))
    return DataSet(name, train, test, known.num_classes, known.front_end)


def default_folder(data_dir: Path | None = None) -> Path:
    """Returns the folder of prepared sets: data_dir, or TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return (data_dir or Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))).expanduser().resolve()


def _split_of_parts(folder: Path, split: str, known: KnownSet, num_steps: int) -> MemorySplit:
    x, y = parts.read_parts(folder, split)
    check_examples(x, y, known.num_classes, name=f"{folder.name} {split} ")
    if x.ndim == 5 and x.shape[1] != num_steps:
        raise ValueError(f"--num-steps: the parts in {folder} hold {x.shape[1]} bins of time, not {num_steps}.")
    return MemorySplit(x, y)


def _split(builder: Any, name: str, split: str, known: KnownSet, num_steps: int) -> Split:
    import tensorflow_datasets as tfds

    # The bytes of image files as they are: decoding them here is faster, and needs no OpenCV to be silent.
    files = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    decoders = {key: tfds.decode.SkipDecoding() for key in files}
    try:
        source = builder.as_data_source(split=split, decoders=decoders)
        len(source)  # opens its files
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} {split}: its files cannot be read ({str(error).splitlines()[0]}); prepare the set again."
        ) from error
    if known.stream is not None:
        return StreamSplit(source, known.stream, known.num_classes)
    x, y = _read(source, known, num_steps, name=f"{name} {split} ")
    check_examples(x, y, known.num_classes, name=f"{name} {split} ")
    return MemorySplit(x, y)


def _read(source: Any, known: KnownSet, num_steps: int, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a split chunk by chunk, so that only its stored form is ever in memory."""

    def chunk(start: int) -> tuple[np.ndarray, list[int]]:
        end = min(start + known.chunk, len(source))
        try:
            examples = source.__getitems__(list(range(start, end)))
            check_readable(examples, "records")
            return known.to_stored(examples, num_steps), [example["label"] for example in examples]
        except (OSError, ValueError, RuntimeError) as error:  # array_record knows only the last
            raise ValueError(
                f"{name}x: examples {start} .. {end - 1} are corrupt ({str(error).splitlines()[0]}); prepare the set "
                "again."
            ) from error

    first, _ = chunk(0)
    x, y = np.empty((len(source), *first.shape[1:]), first.dtype), np.empty(len(source), np.int32)

    def fill(start: int) -> None:
        x[start : start + known.chunk], y[start : start + known.chunk] = chunk(start)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(0, len(source), known.chunk)):
            pass
    return x, y
