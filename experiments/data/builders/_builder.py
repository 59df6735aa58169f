"""What our builders have in common: a source on this machine, and features that need no TensorFlow."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Examples = Iterator[tuple[str, dict[str, Any]]]
"""What a builder generates: keys, and examples as the features want them."""


class SourceBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder that reads what lies on this machine; see the builder of each set for the layout of its source.

    Args:
      source: a folder or an archive.
      keywords: those of ``tfds.core.GeneratorBasedBuilder``.
    """

    def __init__(self, *, source: Path, **keywords: Any) -> None:
        self.source = source
        super().__init__(**keywords)

    def described(self, classes: Sequence[str], **features: Any) -> tfds.core.DatasetInfo:
        """Returns the description of a set with these features and a label."""
        features["label"] = tfds.features.ClassLabel(names=list(classes))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))


def audio_feature() -> Any:
    """Samples of one clip: int16, of any length."""
    return tfds.features.Tensor(shape=(None,), dtype=np.int16)


def events_feature() -> Any:
    """Events of one recording: int32 rows of time [us] from the beginning, x, y, polarity (0 or 1)."""
    return tfds.features.Tensor(shape=(None, 4), dtype=np.int32, encoding="zlib")


def check_classes(source: Path, split: str, labels: Iterable[str], classes: Sequence[str]) -> None:
    """Raises ValueError unless a split has an example of every class."""
    missing = set(classes) - set(labels)
    if missing:
        raise ValueError(
            f"source: {source} holds nothing for the {split} split of {', '.join(sorted(missing))}; is it complete?"
        )


def check_unique(keys: Iterable[str], source: Path) -> None:
    """Raises ValueError if two files stand for the same example."""
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise ValueError(f"source: {source} holds {twice[0]} more than once; is it unpacked beside its archive?")
