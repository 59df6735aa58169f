"""Batches from one on, and in parts: what a resumed run and each of several processes read of a split."""

import jax
import numpy as np
import pytest
from test_data import Files

from experiments.data import MemorySplit, StreamSplit, stored


def splits(count):
    files = Files(count)
    return files, {
        "memory": MemorySplit(files.pixels, files.labels),
        "stream": StreamSplit(files, stored.decode_image, 5),
    }


@pytest.mark.parametrize("kind", ["memory", "stream"])
@pytest.mark.parametrize("key", [None, 3])
def test_from_a_batch_on_come_the_batches_of_the_whole(kind, key):
    files, both = splits(23)
    key = None if key is None else jax.random.key(key)
    every = list(both[kind].batches(5, key))
    files.reads = 0
    for first in range(len(every) + 1):
        rest = list(both[kind].batches(5, key, first))
        assert len(rest) == len(every) - first
        for one, other in zip(rest, every[first:], strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    if kind == "stream":  # only what is given out is read
        assert files.reads == sum(sum(len(y) for _, y in every[first:]) for first in range(len(every) + 1))


@pytest.mark.parametrize("kind", ["memory", "stream"])
@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_a_batch_make_up_the_batch_and_each_is_all_that_is_read_for_it(kind, parts):
    files, both = splits(27)
    key = jax.random.key(3)
    every = list(both[kind].batches(6, key))
    files.reads = 0
    given = [list(both[kind].batches(6, key, 1, (index, parts))) for index in range(parts)]
    for place, (x, y) in enumerate(every[1:]):
        np.testing.assert_array_equal(np.concatenate([batches[place][0] for batches in given]), x)
        np.testing.assert_array_equal(np.concatenate([batches[place][1] for batches in given]), y)
    assert {len(batches) for batches in given} == {3}
    if kind == "stream":
        assert files.reads == 18


@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_parts_that_are_not_equal_or_not_there_are_refused(kind):
    split = splits(23)[1][kind]
    for size, key, part in ((5, jax.random.key(0), (0, 2)), (6, None, (0, 2)), (6, jax.random.key(0), (2, 2))):
        with pytest.raises(ValueError, match="part: "):
            next(split.batches(size, key, 0, part))
