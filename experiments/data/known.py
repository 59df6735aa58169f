"""The data sets that load knows, and everything that it knows about them."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from experiments.data.sequences import spectra, spike_counts
from experiments.data.stored import FIXED_POINT, ToStored, decode_square, event_frames, pixels, spectrograms
from experiments.front_ends import FrontEnd, audio, events, images, sequences


@dataclasses.dataclass(frozen=True)
class KnownSet:
    """What must be known about a set in advance.

    Attributes:
      num_classes: the number of classes.
      front_end: how stored examples become what the network sees.
      to_stored: how prepared examples become stored ones.
      builder: a function that imports and returns our builder; None: a stock set, or a read-only one.
      source: a description of what our builder reads; empty if it needs nothing.
      stock: whether TensorFlow Datasets can download or make it automatically.
      test_split: the prepared split that is the test split.
      chunk: number of examples read and converted at once.
      stream: for a set larger than memory, how the bytes of one image become a stored example; None: it is held.
    """

    num_classes: int
    front_end: FrontEnd
    to_stored: ToStored = pixels
    builder: Callable[[], Any] | None = None
    source: str = ""
    stock: bool = False
    test_split: str = "test"
    chunk: int = 256
    stream: Callable[[bytes], Any] | None = None


def ours(module: str, name: str) -> Callable[[], Any]:
    """Returns what imports a builder of ours when it is called: builders need a package that reading does not."""
    return lambda: getattr(importlib.import_module(f"experiments.data.builders.{module}"), name)


_CIFAR10 = images.cifar(images.CIFAR10_MEAN, images.CIFAR10_STD, cutout=16)
_CIFAR100 = images.cifar(images.CIFAR100_MEAN, images.CIFAR100_STD, cutout=8)

SETS: dict[str, KnownSet] = {
    "digits": KnownSet(10, images.scaled(16), builder=ours("digits", "Digits")),
    "mnist": KnownSet(10, images.scaled(255), stock=True),
    "fashion_mnist": KnownSet(10, images.scaled(255), stock=True),
    "cifar10": KnownSet(10, _CIFAR10, stock=True),
    "cifar100": KnownSet(100, _CIFAR100, stock=True),
    "imagenet2012": KnownSet(1000, images.imagenet(), stock=True, test_split="validation", stream=decode_square),
    "fsdd": KnownSet(
        10,
        audio.standardised(),
        spectrograms(8000),
        ours("fsdd", "Fsdd"),
        "the Free Spoken Digit Dataset: its repository or a zip",
    ),
    "fsdd_sequence": KnownSet(
        10,
        sequences.standardised(),
        spectra(8000),
        ours("fsdd", "FsddSequence"),
        "the Free Spoken Digit Dataset: its repository or a zip",
    ),
    "shd": KnownSet(
        20,
        sequences.counts(),
        spike_counts(700, pooled=5, bin_us=10_000),
        ours("heidelberg", "Shd"),
        "a folder with shd_train.h5 and shd_test.h5",
    ),
    "ssc": KnownSet(
        35,
        sequences.counts(),
        spike_counts(700, pooled=5, bin_us=10_000),
        ours("heidelberg", "Ssc"),
        "a folder with ssc_train.h5, ssc_valid.h5 and ssc_test.h5",
    ),
    "speech_commands_12": KnownSet(
        12,
        audio.standardised(),
        spectrograms(16000),
        ours("speech_commands", "SpeechCommands12"),
        "speech_commands_v0.02, or a folder with it and speech_commands_test_set_v0.02",
    ),
    "speech_commands_mini": KnownSet(
        12,
        audio.standardised(),
        spectrograms(16000),
        ours("speech_commands_mini", "SpeechCommandsMini"),
        "clips in the layout of speech_commands_test_set_v0.02",
    ),
    "n_mnist": KnownSet(
        10,
        events.frames(),
        event_frames(34, 34),
        ours("n_mnist", "NMnist"),
        "a folder with Train and Test, or Train.zip and Test.zip",
    ),
    "nmnist_small": KnownSet(10, events.frames(), event_frames(34, 34)),
    "cifar10_dvs": KnownSet(
        10,
        events.frames(largest=16 * FIXED_POINT, max_shift=5, flip=True),
        event_frames(128, 128, resized=(48, 48)),
        ours("cifar10_dvs", "Cifar10Dvs"),
        "a folder with the ten classes' folders or zips",
        chunk=16,
    ),
}
"""The data sets that load knows, stock ones by their TensorFlow Datasets names."""
