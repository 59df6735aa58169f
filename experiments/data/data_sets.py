"""A data set for training: two splits, the number of classes, and the front end that belongs to it."""

import dataclasses

import numpy as np

from experiments.data.splits import Split
from experiments.front_ends import FrontEnd


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
      name: its name.
      train, test: its splits.
      num_classes: the number of classes.
      front_end: how stored examples become what the network sees.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    front_end: FrontEnd


def hold_out(data: DataSet, share: int = 5) -> DataSet:
    """Returns only the training split: one example in ``share``, drawn with a fixed seed, becomes its test split.

    Use it to choose settings: the test split of the result holds no test example.

    Raises:
      ValueError: the share leaves no example on one of the two sides.
    """
    count = len(data.train)
    if not 1 < share <= count:
        raise ValueError(f"share: must be in 2 .. {count}, the number of training examples, got {share}.")
    order = np.random.default_rng(2025).permutation(count)
    held, kept = np.split(order, [count // share])
    return dataclasses.replace(data, train=data.train.take(kept), test=data.train.take(held))
