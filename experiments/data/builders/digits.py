"""A TensorFlow Datasets builder of scikit-learn's handwritten digits; needs no network and no TensorFlow."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

TEST_SHARE = 5
"""One image in this many of each class is a test image."""


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8 x 8 pixels with values 0 .. 16 (UCI, Alpaydin and Kaynak 1998, its test part).

    The split is fixed: of the images of each class, in scikit-learn's order, every fifth is a test image.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {"train": self._generate_examples(False), "test": self._generate_examples(True)}

    def _generate_examples(self, test: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        seen = np.zeros(10, int)
        for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            seen[label] += 1
            if (seen[label] % TEST_SHARE == 0) == test:
                yield index, {"image": image.reshape(8, 8, 1).astype(np.uint8), "label": int(label)}
