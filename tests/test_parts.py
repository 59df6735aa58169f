"""Data sets as plain numpy files: nothing is lost on the way, and what is missing or damaged is named."""

import sys

import numpy as np
import pytest

from experiments import prepare
from experiments.data import MemorySplit, load
from experiments.data.parts import read_parts, write_parts


def splits(rng, shape=(5, 4, 3, 1), dtype=np.uint8):
    def make(count):
        return MemorySplit(rng.integers(0, 255, (count, *shape[1:])).astype(dtype), rng.integers(0, 10, count))

    return {"train": make(7), "test": make(3)}


@pytest.mark.parametrize("largest", [1, 30, 10**6])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_parts_hold_what_was_written(largest, dtype, tmp_path):
    written = splits(np.random.default_rng(0), dtype=dtype)
    files = write_parts(tmp_path, written, largest)
    assert len(files) == sum(min(len(part), -(-part.x.nbytes // largest)) for part in written.values())
    for name, split in written.items():
        x, y = read_parts(tmp_path, name)
        assert (x.dtype, y.dtype) == (dtype, np.int32)
        np.testing.assert_array_equal(x, split.x)
        np.testing.assert_array_equal(y, split.y)
    with pytest.raises(FileExistsError, match="holds parts already"):
        write_parts(tmp_path, written)


def test_a_missing_or_damaged_part_is_named(tmp_path):
    files = write_parts(tmp_path, splits(np.random.default_rng(0)), 30)
    middle = next(file for file in files if file.name.startswith("train-001"))
    good = middle.read_bytes()
    middle.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=rf"{middle.name} is corrupt"):
        read_parts(tmp_path, "train")
    middle.unlink()
    with pytest.raises(ValueError, match=rf"not complete; check {middle.name}"):
        read_parts(tmp_path, "train")
    with pytest.raises(ValueError, match="the parts of 'validation' are not complete"):
        read_parts(tmp_path, "validation")


def test_the_digits_go_through_parts_to_a_machine_without_tensorflow_datasets(tmp_path, monkeypatch, capsys):
    prepare.main(["digits", "--data-dir", str(tmp_path / "a"), "--parts", str(tmp_path / "b" / "digits")])
    assert "2 files" in capsys.readouterr().out
    first = load("digits", tmp_path / "a")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it fails
    second = load("digits", tmp_path / "b")
    for one, other in ((first.train, second.train), (first.test, second.test)):
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.y, other.y)
    assert second.front_end is first.front_end


def test_frames_of_another_number_of_time_steps_are_refused(tmp_path):
    write_parts(tmp_path / "n_mnist", splits(np.random.default_rng(0), (5, 6, 34, 34, 2)))
    assert load("n_mnist", tmp_path, num_steps=6).train.example.shape == (6, 34, 34, 2)
    with pytest.raises(ValueError, match="hold 6 bins of time, not 4"):
        load("n_mnist", tmp_path, num_steps=4)
