"""Data sets: splits and their batches, reading prepared sets, streaming, and what is refused before training."""

import dataclasses
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.data import SETS, DataSet, MemorySplit, Split, StreamSplit, hold_out, load, stored
from experiments.data.preparing import prepared_folder
from experiments.front_ends import audio, images

ROOT = Path(__file__).resolve().parents[1]


def image_file(pixels, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write_images(folder, name, files, labels, *, shape, num_classes, splits=("train", "test")):
    """Prepares the same image files as every split of a set with a stock set's name and features."""
    files = list(files)

    class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=num_classes),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, _):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            for index, (file, label) in enumerate(zip(files, labels, strict=True)):
                yield index, {"image": io.BytesIO(file), "label": int(label)}

    Written.name = name
    Written(data_dir=str(folder), file_format="array_record").download_and_prepare()
    return folder / name / "3.0.1"


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (23, 28, 28), dtype=np.uint8), rng.integers(0, 10, 23)


@pytest.fixture
def mnist(tmp_path, pictures):
    pixels, labels = pictures
    return write_images(tmp_path, "mnist", map(image_file, pixels), labels, shape=(28, 28, 1), num_classes=10)


def numbered(count):
    """A split whose examples say which they are."""
    return MemorySplit(np.arange(count, dtype=np.uint8)[:, None], np.arange(count) % 7)


@dataclasses.dataclass
class Positions:
    """A split of nothing but the positions that were taken."""

    indices: np.ndarray

    def __len__(self):
        return len(self.indices)

    def take(self, indices):
        return Positions(self.indices[indices])


def contents(batches):
    batches = list(batches)
    return np.concatenate([np.asarray(x) for x, _ in batches]), np.concatenate([np.asarray(y) for _, y in batches])


@pytest.mark.parametrize(("count", "size"), [(60, 20), (61, 20), (5, 7), (1, 1)])
def test_batches_in_order_give_every_example_once_and_the_remainder_last(count, size):
    split = numbered(count)
    sizes = [len(y) for _, y in split.batches(size)]
    assert sizes == [size] * (count // size) + [count % size] * (count % size > 0)
    x, y = contents(split.batches(size))
    np.testing.assert_array_equal(x[:, 0], np.arange(count))
    np.testing.assert_array_equal(y, np.arange(count) % 7)


def test_a_key_draws_the_order_and_drops_the_remainder():
    split = numbered(50)
    x, y = contents(split.batches(8, jax.random.key(1)))
    assert len(x) == 48
    assert len(np.unique(x)) == 48
    np.testing.assert_array_equal(y, x[:, 0] % 7)  # a label stays with its example
    np.testing.assert_array_equal(x, contents(split.batches(8, jax.random.key(1)))[0])
    assert not np.array_equal(x, contents(split.batches(8, jax.random.key(2)))[0])
    assert not np.array_equal(np.sort(x[:, 0]), x[:, 0])


def test_every_example_is_left_out_as_often_as_another():
    counts = np.zeros(10)
    for seed in range(300):
        counts[np.asarray(contents(numbered(10).batches(7, jax.random.key(seed)))[0])[:, 0]] += 1
    # 210 expected, deviation sqrt(300 * .7 * .3) = 8
    assert np.all(np.abs(counts - 210) < 40)


def test_a_memory_split_keeps_what_is_stored():
    x = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    split = MemorySplit(x, np.array([3, 1, 0, 2], np.int64))
    assert isinstance(split, Split)
    assert split.example == jax.ShapeDtypeStruct((3, 2), jnp.uint8)
    assert (split.x.dtype, split.y.dtype) == (jnp.uint8, jnp.int32)
    taken = split.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.x, x[[2, 0]])
    np.testing.assert_array_equal(taken.y, [0, 3])


def test_bad_splits_and_batch_sizes_are_refused():
    with pytest.raises(ValueError, match="one label per example"):
        MemorySplit(np.zeros((3, 2)), np.zeros(2, int))
    with pytest.raises(ValueError, match="no example"):
        MemorySplit(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(ValueError, match="batch_size: must be at least 1, got 0"):
        next(numbered(3).batches(0))


@given(st.integers(2, 80), st.integers(2, 9))
def test_holding_out_divides_the_training_split_and_leaves_the_test_split_alone(count, share):
    data = DataSet("numbered", Positions(np.arange(count)), Positions(np.array([-1])), 7, images.scaled(255))
    if share > count:
        with pytest.raises(ValueError, match=f"share: must be in 2 .. {count}"):
            hold_out(data, share)
        return
    held = hold_out(data, share)
    kept, out = held.train.indices, held.test.indices
    assert len(out) == count // share
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, out])), np.arange(count))
    np.testing.assert_array_equal(out, np.random.default_rng(2025).permutation(count)[: count // share])


def test_a_stock_image_set_is_read_pixel_by_pixel(mnist, pictures):
    pixels, labels = pictures
    data = load("mnist", mnist.parents[1])
    assert data.train.example == jax.ShapeDtypeStruct((28, 28, 1), jnp.uint8)
    np.testing.assert_array_equal(np.asarray(data.test.x)[..., 0], pixels)
    np.testing.assert_array_equal(data.test.y, labels)
    x, _ = next(data.train.batches(23))
    np.testing.assert_allclose(data.front_end.evaluate(x), pixels[..., None] / np.float32(255), rtol=1e-6)


def test_colour_and_chunks_smaller_than_the_set_make_no_difference(tmp_path, monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(23) * 4
    write_images(tmp_path, "cifar100", map(image_file, pixels), labels, shape=(32, 32, 3), num_classes=100)
    monkeypatch.setitem(SETS, "cifar100", dataclasses.replace(SETS["cifar100"], chunk=5))
    data = load("cifar100", tmp_path)
    np.testing.assert_array_equal(data.train.x, pixels)
    np.testing.assert_array_equal(data.train.y, labels)
    assert data.num_classes == 100


def test_the_newest_version_is_read(tmp_path):
    for version in ("2.0.0", "10.0.0", "incomplete.ABC_11.0.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert prepared_folder("mnist", tmp_path) == tmp_path / "mnist" / "10.0.0"


@pytest.mark.parametrize("name", [name for name in SETS if name != "digits"])
def test_a_missing_set_says_how_to_get_it_and_waits_for_nothing(name, tmp_path):
    start = time.perf_counter()
    with pytest.raises(FileNotFoundError, match=f"dataset: '{name}' is not prepared in {tmp_path}") as error:
        load(name, tmp_path)
    assert time.perf_counter() - start < 20  # a network would be waited for much longer
    command = f"python -m experiments.prepare {name} --data-dir {tmp_path}"
    assert (command in str(error.value)) != (name == "nmnist_small")
    assert ("--source PATH" in str(error.value)) == bool(SETS[name].source)
    assert ("copy" in str(error.value)) == (not SETS[name].source)


def test_a_missing_set_is_found_missing_before_heavy_imports(tmp_path):
    code = (
        "import sys; from pathlib import Path; from experiments.data import load\n"
        f"try: load('mnist', Path({str(tmp_path)!r}))\n"
        "except FileNotFoundError: print({'tensorflow_datasets', 'grain', 'PIL', 'scipy.io'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(
        ValueError, match="dataset: there is no 'digitz'; choose one of cifar10, cifar100, cifar10_dvs,"
    ):
        load("digitz", tmp_path)
    with pytest.raises(ValueError, match="num_steps: must be at least 1, got 0"):
        load("n_mnist", tmp_path, num_steps=0)


def test_a_set_in_another_format_is_refused_with_the_cure(mnist):
    info = json.loads((mnist / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (mnist / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(FileNotFoundError, match=r"stored as tfrecord.*without TensorFlow") as error:
        load("mnist", mnist.parents[1])
    assert "python -m experiments.prepare mnist" in str(error.value)


def test_labels_outside_the_classes_are_refused(tmp_path, pictures):
    write_images(
        tmp_path,
        "mnist",
        map(image_file, pictures[0][:3]),
        [0, 11, 2],
        shape=(28, 28, 1),
        num_classes=12,
        splits=["train"],
    )
    with pytest.raises(ValueError, match=r"mnist train y: 1 labels are outside the classes 0 .. 9.*index 1"):
        load("mnist", tmp_path)


def test_a_corrupt_image_and_a_truncated_set_are_refused(tmp_path, pictures):
    files = [image_file(pixels) for pixels in pictures[0][:4]]
    files[2] = files[2][:-100]
    prepared = write_images(tmp_path, "mnist", files, range(4), shape=(28, 28, 1), num_classes=10)
    with pytest.raises(ValueError, match=r"mnist train x: examples 0 .. 3 are corrupt"):
        load("mnist", tmp_path)
    (shard,) = prepared.glob("mnist-train*")
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"mnist train"):
        load("mnist", tmp_path)


def test_values_that_are_not_finite_are_refused():
    from experiments.data.splits import check_examples

    x = np.zeros((3, 2, 2, 1), np.float32)
    check_examples(x, np.zeros(3, np.int32), 2, name="train ")
    x[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"train x: 1 examples hold NaN or infinity, the first at index 1"):
        check_examples(x, np.zeros(3, np.int32), 2, name="train ")


def recordings(seed=0, lengths=(5, 700, 1, 64, 0), side=34):
    rng = np.random.default_rng(seed)
    return [
        np.stack([np.sort(rng.integers(0, 10**6, n)), *rng.integers(0, side, (2, n)), rng.integers(0, 2, n)], 1).astype(
            np.int32
        )
        for n in lengths
    ]


def test_recordings_of_all_lengths_are_binned_as_one_by_one():
    chunk = [{"events": recording} for recording in recordings()]
    frames = stored.event_frames(34, 34)(chunk, 3)
    assert (frames.shape, frames.dtype) == ((5, 3, 34, 34, 2), np.uint8)
    for example, frame in zip(chunk, frames, strict=True):
        recording = example["events"]
        time, x, y, polarity = recording.astype(np.int64).T
        first, last = (time[0], time[-1]) if len(time) else (0, 0)
        expected = np.zeros((3, 34, 34, 2), np.uint8)
        np.add.at(expected, ((time - first) * 3 // (last - first + 1), y, x, polarity), 1)
        np.testing.assert_array_equal(frame, expected)


def test_resized_frames_hold_eighths_of_events():
    chunk = [{"events": recording} for recording in recordings(side=128, lengths=(3000, 20000))]
    frames = stored.event_frames(128, 128, (48, 48))(chunk, 2)
    assert (frames.shape, frames.dtype) == ((2, 2, 48, 48, 2), np.uint8)
    np.testing.assert_allclose(frames.sum(axis=(1, 2, 3, 4)) / stored.FIXED_POINT, [3000, 20000], rtol=0.02)


def test_events_outside_the_sensor_are_refused():
    bad = recordings()[1]
    bad[7, 2] = 34
    with pytest.raises(ValueError, match="outside a sensor of 34 x 34"):
        stored.event_frames(34, 34)([{"events": bad}], 2)


def test_clips_of_all_lengths_become_spectrograms_of_their_first_second():
    rng = np.random.default_rng(0)
    clips = [rng.integers(-3000, 3000, n).astype(np.int16) for n in (8000, 100, 12000)]
    spectrograms = stored.spectrograms(8000)([{"audio": clip} for clip in clips], 1)
    assert (spectrograms.shape, spectrograms.dtype) == ((3, 32, 32, 1), np.float32)
    seconds = np.stack([np.pad(clip, (0, 8000))[:8000] for clip in clips]) / np.float32(32768)
    np.testing.assert_allclose(spectrograms, audio.log_mel(seconds, 8000), atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300), (256, 256), (90, 64)])
def test_an_image_is_cut_to_a_square_around_its_centre(height, width):
    # Brightness is the distance from the centre: the middle of the square must be the darkest.
    rows, columns = np.abs(np.arange(height) - (height - 1) / 2), np.abs(np.arange(width) - (width - 1) / 2)
    pixels = np.minimum(255, (rows[:, None] + columns[None]) * 200 / min(height, width)).astype(np.uint8)
    square = stored.decode_square(image_file(np.stack([pixels] * 3, -1)), 32)
    assert (square.shape, square.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_allclose(square.astype(int), square[::-1, ::-1].astype(int), atol=8)
    # From the centre to the border along an axis it is 100, whichever side was cut.
    np.testing.assert_allclose(square[[0, 16], [16, 0], 0].astype(int), 100, atol=8)
    assert square[16, 16, 0] < 10


def test_grey_and_cmyk_images_become_rgb():
    grey = stored.decode_square(image_file(np.full((40, 50), 77, np.uint8), "JPEG"), 32)
    np.testing.assert_allclose(grey, 77, atol=2)
    buffer = io.BytesIO()
    Image.new("CMYK", (40, 50), (0, 255, 255, 0)).save(buffer, "JPEG")
    assert stored.decode_square(buffer.getvalue(), 32)[16, 16, 0] > 200


class Files:
    """A source of images that counts what is read."""

    def __init__(self, count, label=lambda index: index % 5):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        self.files = [image_file(pixels) for pixels in self.pixels]
        self.labels = [label(index) for index in range(count)]
        self.reads = 0

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        self.reads += 1
        return {"image": self.files[index], "label": self.labels[index]}


def test_a_stream_gives_what_a_memory_split_gives():
    files = Files(23)
    stream = StreamSplit(files, stored.decode_image, 5)
    memory = MemorySplit(files.pixels, files.labels)
    assert isinstance(stream, Split)
    assert (len(stream), stream.example) == (len(memory), memory.example)
    for one, other in zip(stream.batches(5), memory.batches(5), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert (one[0].dtype, one[1].dtype) == (other[0].dtype, other[1].dtype)
    indices = np.array([20, 3, 4, 3])
    taken, again = stream.take(indices), stream.take(indices).take(np.array([0, 2]))
    np.testing.assert_array_equal(contents(taken.batches(3))[0], files.pixels[indices])
    np.testing.assert_array_equal(contents(again.batches(3))[0], files.pixels[[20, 4]])


def test_a_stream_is_shuffled_by_the_key_and_drops_the_remainder():
    files = Files(23)
    stream = StreamSplit(files, stored.decode_image, 5)
    x, y = contents(stream.batches(5, jax.random.key(3)))
    positions = [int(np.flatnonzero((files.pixels == image).all((1, 2, 3)))[0]) for image in x]
    assert len(set(positions)) == len(positions) == 20
    assert positions != sorted(positions)
    np.testing.assert_array_equal(y, np.array(positions) % 5)
    one_thread = dataclasses.replace(stream, threads=1)
    np.testing.assert_array_equal(x, contents(one_thread.batches(5, jax.random.key(3)))[0])
    assert not np.array_equal(x, contents(stream.batches(5, jax.random.key(4)))[0])


def test_a_stream_reads_no_more_than_it_is_about_to_give():
    files = Files(400)
    batches = StreamSplit(files, stored.decode_image, 5, threads=2).batches(4, jax.random.key(0))
    next(batches)
    time.sleep(0.2)  # time enough to read all, were it not held back
    assert files.reads <= 40
    batches.close()


def test_a_stream_can_be_held_out():
    files = Files(20)
    stream = StreamSplit(files, stored.decode_image, 5)
    held = hold_out(DataSet("files", stream, stream, 5, images.scaled(255)))
    expected = hold_out(DataSet("files", MemorySplit(files.pixels, files.labels), stream, 5, images.scaled(255)))
    for split in ("train", "test"):
        x, y = contents(getattr(held, split).batches(4))
        np.testing.assert_array_equal(x, getattr(expected, split).x)
        np.testing.assert_array_equal(y, getattr(expected, split).y)


def test_a_stream_names_what_is_wrong():
    files = Files(6)
    files.files[4] = files.files[4][:60]
    with pytest.raises(ValueError, match="x: the image of example 4 is corrupt"):
        contents(StreamSplit(files, stored.decode_image, 5).batches(2))
    with pytest.raises(ValueError, match=r"y: the label of example 3, 3, is outside 0 .. 2"):
        contents(StreamSplit(files, stored.decode_image, 3).batches(2))
    with pytest.raises(ValueError, match="no example"):
        StreamSplit(Files(0), stored.decode_image, 3)
    with pytest.raises(ValueError, match="workers, threads"):
        StreamSplit(files, stored.decode_image, 5, workers=-1)


@pytest.mark.slow
def test_imagenet_streams_from_its_prepared_form(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (40 + 3 * n, 60, 3), dtype=np.uint8) for n in range(7)]
    files = [image_file(image, "JPEG") for image in pixels]
    write_images(
        tmp_path, "imagenet2012", files, range(990, 997), shape=(None, None, 3), num_classes=1000,
        splits=("train", "validation"),
    )  # fmt: skip
    data = load("imagenet2012", tmp_path)
    assert isinstance(data.train, StreamSplit)
    assert data.test.example == jax.ShapeDtypeStruct((256, 256, 3), jnp.uint8)
    x, y = contents(data.test.batches(3))
    np.testing.assert_array_equal(y, range(990, 997))
    np.testing.assert_array_equal(x, [stored.decode_square(file) for file in files])
    frames = data.front_end.evaluate(jnp.asarray(x))
    assert (frames.shape, frames.dtype) == ((7, 224, 224, 3), jnp.float32)
    seven = dataclasses.replace(data.train, workers=2).batches(3, jax.random.key(0))
    np.testing.assert_array_equal(contents(seven)[0], contents(data.train.batches(3, jax.random.key(0)))[0])
