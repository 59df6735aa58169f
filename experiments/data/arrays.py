"""Reading a prepared data set into memory, once, and saying at once what to do where it is missing."""

import contextlib
import dataclasses
import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import bsojax


class Arrays(NamedTuple):
    """A data set in memory.

    Attributes:
      train_x, test_x: float32 images in [0, 1] of shape ``(images, height, width, channels)``.
      train_y, test_y: int32 labels of shape ``(images,)``.
      num_classes: the number of classes.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    num_classes: int


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """How an image set is stored.

    Attributes:
      num_classes: the number of classes.
      largest: the pixel value that becomes 1.
      bundled: whether we can prepare it without a network.
    """

    num_classes: int
    largest: float = 255
    bundled: bool = False


IMAGE_SETS = {
    "digits": ImageSet(10, largest=16, bundled=True),
    "mnist": ImageSet(10),
    "fashion_mnist": ImageSet(10),
    "cifar10": ImageSet(10),
    "cifar100": ImageSet(100),
}
"""The data sets that load knows, by their TensorFlow Datasets names."""


def load(name: str, data_dir: Path | None = None) -> Arrays:
    """Reads a data set into memory; one of ours is prepared first where it is missing.

    Never touches the network: a set that is not on this machine is an error that says how to get it.

    Args:
      name: a key of IMAGE_SETS.
      data_dir: where prepared sets lie; None: TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      ValueError: the name is unknown, or the set's values are unfit.
      FileNotFoundError: the set has not been prepared on this machine, or not in a format readable here.
    """
    if name not in IMAGE_SETS:
        raise ValueError(f"dataset: there is no '{name}'; choose one of {', '.join(sorted(IMAGE_SETS))}.")
    image_set = IMAGE_SETS[name]
    folder = data_dir or Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    folder = folder.expanduser().resolve()
    builder = _prepared_digits(folder) if image_set.bundled else _prepared(name, folder)
    train, test = (_read(builder, name, split, image_set) for split in ("train", "test"))
    return Arrays(*train, *test, image_set.num_classes)


def hold_out(data: Arrays, share: int = 5) -> Arrays:
    """Returns the training part alone: one image in ``share``, drawn with a fixed seed, takes the test set's place."""
    order = np.random.default_rng(2025).permutation(len(data.train_x))
    held, kept = np.split(order, [len(order) // share])
    return Arrays(data.train_x[kept], data.train_y[kept], data.train_x[held], data.train_y[held], data.num_classes)


def _read(builder: Any, name: str, split: str, image_set: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    examples = list(builder.as_data_source(split=split))
    x = np.stack([example["image"] for example in examples]).astype(np.float32) / np.float32(image_set.largest)
    y = np.array([example["label"] for example in examples], np.int32)
    bsojax.check_data(x, y, image_set.num_classes, name=f"{name} {split} ")
    return x, y


def _prepared_digits(folder: Path) -> Any:
    from experiments.data.digits import Digits

    builder = Digits(data_dir=str(folder), file_format="array_record")
    # At once where it is there already. Its progress bars would stand in the way of ours: it takes a second.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare()
    return builder


def _prepared(name: str, folder: Path) -> Any:
    command = (
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='{folder}', "
        "file_format='array_record').download_and_prepare()\""
    )
    advice = f"On a machine with a network and TensorFlow run:\n  {command}\nthen bring {folder / name} here."
    versions = sorted(info.parent for info in (folder / name).glob("*/dataset_info.json"))
    if not versions:
        raise FileNotFoundError(f"dataset: '{name}' is not prepared in {folder} (--data-dir). {advice}")
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(versions[-1]))
    if builder.info.file_format.value != "array_record":
        raise FileNotFoundError(
            f"dataset: '{name}' in {versions[-1]} is stored as {builder.info.file_format.value}, which cannot be read "
            f"without TensorFlow. {advice}"
        )
    return builder
