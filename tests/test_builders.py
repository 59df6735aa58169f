"""Our builders: sets made from their official layouts, and preparations that fail without leaving anything behind."""

import io
import json
import shutil
import tarfile
import wave
import zipfile

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from experiments import prepare as command
from experiments.data import SETS, load, preparing
from experiments.data.builders import _recordings as recordings
from experiments.data.builders._speech import CLASSES, COMMANDS, speaker_of
from experiments.data.preparing import prepare, prepared_folder


def wav(samples, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return buffer.getvalue()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def zipped(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def examples(name, folder, split):
    return list(tfds.builder_from_directory(str(prepared_folder(name, folder))).as_data_source(split=split))


def held(name, folder, split, feature):
    """The contents of a prepared split without their order."""
    return sorted((int(example["label"]), example[feature].tobytes()) for example in examples(name, folder, split))


def spoken_digits(seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"recordings/{digit}_{speaker}_{n}.wav": wav(rng.integers(-9999, 9999, rng.integers(50, 300)))
        for digit in range(10)
        for speaker in ("ann", "bob")
        for n in (0, 4, 5, 11)
    }


def samples_of(data):
    return np.frombuffer(data[44:], "<i2").astype(np.int16)


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_spoken_digits_are_split_by_number(form, tmp_path):
    files = spoken_digits() | {"README.md": b"about", "__MACOSX/._0_ann_0.wav": b"junk", ".git/x_1.wav": b"junk"}
    source = {
        "folder": lambda: write(tmp_path / "fsdd", files),
        "zip": lambda: zipped(tmp_path / "fsdd.zip", files),
        "tar": lambda: tarred(tmp_path / "fsdd.tar.gz", files),
    }[form]()
    prepare("fsdd", tmp_path / "data", source, quiet=True)
    expected = {"train": [], "test": []}
    for name, data in spoken_digits().items():
        digit, _, number = name.removeprefix("recordings/").removesuffix(".wav").split("_")
        split = "test" if int(number) <= 4 else "train"
        expected[split].append((int(digit), samples_of(data).tobytes()))
    for split, clips in expected.items():
        assert held("fsdd", tmp_path / "data", split, "audio") == sorted(clips)
    data = load("fsdd", tmp_path / "data")
    assert (len(data.train), len(data.test)) == (40, 40)
    x, _ = next(data.train.batches(8))
    assert np.isfinite(data.front_end.evaluate(x)).all()


def bin_file(events):
    time, x, y, polarity = np.asarray(events, np.int64).T
    words = x << 32 | y << 24 | polarity << 23 | time
    return words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:].tobytes()


def recording(rng, count=40, side=34):
    time = np.sort(rng.integers(0, 300_000, count))
    return np.stack([time, *rng.integers(0, side, (2, count)), rng.integers(0, 2, count)], axis=1).astype(np.int32)


def n_mnist():
    rng = np.random.default_rng(0)
    return {
        f"{folder}/{digit}/{number:05d}.bin": recording(rng)
        for folder, count in (("Train", 3), ("Test", 1))
        for digit in range(10)
        for number in range(digit * count, (digit + 1) * count)
    }


@pytest.mark.parametrize("form", ["folder", "zips"])
def test_n_mnist_holds_exactly_the_events_of_its_files(form, tmp_path):
    files = {name: bin_file(events) for name, events in n_mnist().items()}
    if form == "folder":
        source = write(tmp_path / "source", files)
    else:
        source = tmp_path / "source"
        for folder in ("Train", "Test"):
            part = {name: data for name, data in files.items() if name.startswith(folder)}
            zipped(source / f"{folder}.zip", part)
    prepare("n_mnist", tmp_path / "data", source, quiet=True)
    for split, folder in (("train", "Train/"), ("test", "Test/")):
        expected = [(int(name.split("/")[1]), e.tobytes()) for name, e in n_mnist().items() if name.startswith(folder)]
        assert held("n_mnist", tmp_path / "data", split, "events") == sorted(expected)
    data = load("n_mnist", tmp_path / "data", num_steps=3)
    assert data.train.example.shape == (3, 34, 34, 2)
    np.testing.assert_array_equal(np.asarray(data.train.x).sum(axis=(1, 2, 3, 4)), 40)
    x, _ = next(data.test.batches(4))
    assert data.front_end.evaluate(x).shape == (3, 4, 34, 34, 2)


def test_a_40_bit_event_is_taken_apart_as_its_authors_say():
    # 0x05 column, 0x21 row, then polarity 1 and 0x012345 us
    events = recordings.decode_bin(bytes([0x05, 0x21, 0x81, 0x23, 0x45]), 34, 34)
    np.testing.assert_array_equal(events, [[0x012345, 5, 33, 1]])
    marked = bin_file([[10, 1, 2, 0], [20, 0, 240, 0], [5, 3, 4, 1], [6, 0, 240, 0], [7, 5, 6, 1]])
    np.testing.assert_array_equal(
        recordings.decode_bin(marked, 34, 34), [[10, 1, 2, 0], [5 + 8192, 3, 4, 1], [7 + 2 * 8192, 5, 6, 1]]
    )


def speech(rng, *, words=("cat", "dog")):
    """Files in the layout of the archive: six clips a word, of which one each is for validation and test."""
    files = {}
    lists = {"validation_list.txt": [], "testing_list.txt": []}
    for word in (*COMMANDS, *words):
        for n, speaker in enumerate(("00aa", "00bb", "00cc", "00dd", "00ee", "00ff")):
            name = f"{word}/{speaker}_nohash_{n}.wav"
            files[name] = wav(rng.integers(-9999, 9999, 16000 - 7 * n), 16000)
            if n < 2:
                lists[list(lists)[n]].append(name)
    files |= {name: "\n".join(lines).encode() + b"\n" for name, lines in lists.items()}
    for number in range(2):
        # The value of a sample says where it lies.
        files[f"_background_noise_/noise_{number}.wav"] = wav(np.arange(200_000) // 20 + 10000 * number, 16000)
    return files


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_speech_commands_has_twelve_classes_and_the_official_lists(form, tmp_path):
    files = speech(np.random.default_rng(0))
    source = (
        write(tmp_path / "speech_commands_v0.02", files)
        if form == "folder"
        else tarred(tmp_path / "speech_commands_v0.02.tar.gz", files)
    )
    prepare("speech_commands_12", tmp_path / "data", source, quiet=True)
    clips = {samples_of(data).tobytes(): name for name, data in files.items() if name.endswith(".wav")}
    for split, numbers, region in (
        ("train", {2, 3, 4, 5}, (0, 160_000)),
        ("validation", {0}, (160_000, 180_000)),
        ("test", {1}, (180_000, 200_000)),
    ):
        names, silence = {}, []
        for example in examples("speech_commands_12", tmp_path / "data", split):
            label = CLASSES[example["label"]]
            if label == "_silence_":
                silence.append(example["audio"].astype(int))
            else:
                names.setdefault(label, []).append(clips[example["audio"].tobytes()])
        for label in COMMANDS:
            assert sorted(names[label]) == sorted(
                n for n in files if n.startswith(f"{label}/") and number(n) in numbers
            )
        count = len(numbers)  # a tenth of ten commands
        assert len(set(names["_unknown_"])) == len(names["_unknown_"]) == len(silence) == count
        assert all(name.startswith(("cat/", "dog/")) and number(name) in numbers for name in names["_unknown_"])
        for clip in silence:
            assert len(clip) == 16000
            assert region[0] <= clip[0] % 10000 * 20 + 19
            assert clip[-1] % 10000 * 20 < region[1]
    data = load("speech_commands_12", tmp_path / "data")
    assert (len(data.train), len(data.test)) == (48, 12)


def number(name):
    return int(name.removesuffix(".wav").split("_")[-1])


def test_the_official_test_set_is_the_test_split_where_it_is_there(tmp_path):
    rng = np.random.default_rng(0)
    tarred(tmp_path / "source" / "speech_commands_v0.02.tar.gz", speech(rng))
    official = {f"{label}/{n}.wav": wav(rng.integers(-9, 9, 16000), 16000) for label in CLASSES for n in range(2)}
    tarred(tmp_path / "source" / "speech_commands_test_set_v0.02.tar.gz", official)
    prepare("speech_commands_12", tmp_path / "data", tmp_path / "source", quiet=True)
    expected = [(CLASSES.index(name.split("/")[0]), samples_of(data).tobytes()) for name, data in official.items()]
    assert held("speech_commands_12", tmp_path / "data", "test", "audio") == sorted(expected)
    assert len(examples("speech_commands_12", tmp_path / "data", "train")) == 48


def test_a_preparation_draws_the_same_clips_each_time(tmp_path):
    source = write(tmp_path / "source", speech(np.random.default_rng(0)))
    for folder in ("one", "other"):
        prepare("speech_commands_12", tmp_path / folder, source, quiet=True)
    for split in ("train", "validation", "test"):
        one, other = (held("speech_commands_12", tmp_path / folder, split, "audio") for folder in ("one", "other"))
        assert one == other


def test_a_few_clips_are_split_by_speaker(tmp_path):
    rng = np.random.default_rng(0)
    names = {}
    for label in CLASSES:
        for n in range(30):
            speaker = f"{n * 7919:08x}"
            name = {"_silence_": f"{n}.wav", "_unknown_": f"cat_{speaker}_nohash_0.wav.wav"}.get(
                label, f"{speaker}_nohash_{n % 3}.wav"
            )
            names[f"{label}/{name}"] = rng.integers(-99, 99, 400)
    source = zipped(tmp_path / "mini.zip", {name: wav(samples, 16000) for name, samples in names.items()})
    prepare("speech_commands_mini", tmp_path / "data", source, quiet=True)
    of_samples = {samples.astype(np.int16).tobytes(): name for name, samples in names.items()}
    speakers = {}
    for split in ("train", "test"):
        found = examples("speech_commands_mini", tmp_path / "data", split)
        assert all(of_samples[e["audio"].tobytes()].split("/")[0] == CLASSES[e["label"]] for e in found)
        speakers[split] = {speaker_of(of_samples[e["audio"].tobytes()]) for e in found}
    assert not speakers["train"] & speakers["test"]
    assert len(speakers["train"] | speakers["test"]) == 60  # 30 speakers, and 30 clips of silence
    assert 4 <= len(speakers["test"]) <= 20


def address(event):
    """The address of an event as the chip gives it, from the column and row of the upright picture."""
    _, x, y, polarity = event
    return (127 - x) << 8 | (127 - y) << 1 | (1 - polarity)


def aedat(events, start=5_000_000):
    words = [[address(event), event[0] + start] for event in np.asarray(events, np.int64)]
    return b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + np.asarray(words, ">u4").tobytes()


def mat(events, columns=4):
    """The matrix that the set's own script makes: the chip's rows as they are, its columns mirrored."""
    time, x, y, polarity = np.asarray(events, np.int64).T
    raw_x, raw_y = 127 - y, 127 - x
    between = [np.full(len(time), -1)] * (columns - 4)
    buffer = io.BytesIO()
    matrix = np.stack([time, *between, 127 - raw_x, raw_y, 2 * polarity - 1], axis=1).astype(float)
    scipy.io.savemat(buffer, {"CIN": matrix})
    return buffer.getvalue()


def dvs(count=10):
    rng = np.random.default_rng(0)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    events = {f"{name}/cifar10_{name}_{n}": recording(rng, 60, 128) for name in classes for n in range(count)}
    for each in events.values():
        each[:, 0] -= each[0, 0]
    return events


def test_all_forms_of_an_event_file_hold_the_same_events():
    events = dvs()["cat/cifar10_cat_3"]
    np.testing.assert_array_equal(recordings.decode_aedat(aedat(events)), events)
    np.testing.assert_array_equal(recordings.decode_mat(mat(events)), events)
    np.testing.assert_array_equal(recordings.decode_mat(mat(events, columns=6)), events)
    assert events.dtype == recordings.decode_aedat(aedat(events)).dtype == np.int32


def test_words_that_are_no_events_are_passed_over_and_a_restarted_clock_goes_on():
    header = b"#!AER-DAT2.0\r\n"
    words = [[address([0, 1, 2, 1]), 100], [2**31, 110], [address([0, 3, 4, 0]), 150], [address([0, 5, 6, 1]), 7]]
    events = recordings.decode_aedat(header + np.asarray(words, ">u4").tobytes())
    np.testing.assert_array_equal(events, [[0, 1, 2, 1], [50, 3, 4, 0], [57, 5, 6, 1]])


@pytest.mark.parametrize("form", ["aedat", "mat"])
def test_the_last_tenth_of_each_class_by_number_is_the_test_set(form, tmp_path):
    events = dvs(count=12)
    encode = {"aedat": aedat, "mat": mat}[form]
    files = {f"{name}.{form}": encode(each) for name, each in events.items()}
    birds = {name: data for name, data in files.items() if name.startswith("bird/")}
    source = write(tmp_path / "source", {name: data for name, data in files.items() if name not in birds})
    zipped(source / "bird.zip", birds)  # as it is downloaded
    prepare("cifar10_dvs", tmp_path / "data", source, quiet=True)
    classes = sorted({name.split("/")[0] for name in events})
    for split, chosen in (("test", {11}), ("train", set(range(11)))):
        expected = [
            (classes.index(name.split("/")[0]), each.tobytes())
            for name, each in events.items()
            if int(name.split("_")[-1]) in chosen
        ]
        assert held("cifar10_dvs", tmp_path / "data", split, "events") == sorted(expected)
    data = load("cifar10_dvs", tmp_path / "data", num_steps=10)
    assert data.train.example.shape == (10, 48, 48, 2)


def damaged(name):
    """Sources with one thing wrong, with what the message must say."""
    digits = spoken_digits()
    clip = "recordings/3_bob_5.wav"
    commands = speech(np.random.default_rng(0))
    events = {n: bin_file(e) for n, e in n_mnist().items()}
    outside, disordered = bytes([34, 0, 0, 0, 0]), bin_file([[9, 1, 1, 1], [8, 1, 1, 1]])
    jaer = {f"{n}.aedat": aedat(e) for n, e in dvs().items()}
    matlab = {f"{n}.mat": mat(e) for n, e in dvs().items()}
    without = {n: d for n, d in commands.items() if n != "testing_list.txt"}
    quiet = {n: d for n, d in commands.items() if not n.startswith("_")}
    short = commands | {"_background_noise_/noise_1.wav": wav(np.zeros(9000), 16000)}
    return {
        "truncated wav": ("fsdd", digits | {clip: digits[clip][:-31]}, f"{clip}: holds .* truncated"),
        "wav without a header": ("fsdd", digits | {clip: b"RIFF"}, f"{clip}: is no WAV file"),
        "empty wav": ("fsdd", digits | {clip: wav([])}, f"{clip}: holds 0 samples"),
        "wrong sample rate": ("fsdd", digits | {clip: wav([1, 2], 16000)}, f"{clip}: needs 8000 samples a second"),
        "odd name": ("fsdd", digits | {"recordings/three.wav": wav([1])}, "three.wav: the name is not"),
        "no test": ("fsdd", {n: d for n, d in digits.items() if n[-5] not in "04"}, "nothing for the test split"),
        "twice": ("fsdd", digits | {"more/3_bob_5.wav": digits[clip]}, "3_bob_5 more than once"),
        "truncated bin": ("n_mnist", events | {"Train/2/00006.bin": bytes(7)}, "Train/2/00006.bin: .* multiple of 5"),
        "empty bin": ("n_mnist", events | {"Test/2/00002.bin": b""}, "Test/2/00002.bin: .* multiple of 5"),
        "pixel outside": ("n_mnist", events | {"Test/2/00002.bin": outside}, "Test/2/00002.bin: .*34 x 34"),
        "disorder": ("n_mnist", events | {"Test/2/00002.bin": disordered}, "Test/2/00002.bin: .*order of time"),
        "misplaced bin": ("n_mnist", events | {"Train/00006.bin": bytes(5)}, "Train/00006.bin: it lies in no folder"),
        "missing list": ("speech_commands_12", without, "lacks testing_list.txt"),
        "missing clip": ("speech_commands_12", {n: d for n, d in commands.items() if n != "cat/00aa_nohash_0.wav"},
                         "lacks cat/00aa_nohash_0.wav, which validation_list.txt lists"),
        "no noise": ("speech_commands_12", quiet, "holds no _background_noise_"),
        "short noise": ("speech_commands_12", short, "noise_1.wav: a tenth of it is shorter than a second"),
        "mini with more words": ("speech_commands_mini", commands, "its folder is none of the classes"),
        "aedat of another version": (
            "cifar10_dvs", jaer | {"dog/cifar10_dog_3.aedat": b"#!AER-DAT3.1\r\n"}, "cifar10_dog_3.aedat: .*AER-DAT2.0"
        ),
        "truncated aedat": (
            "cifar10_dvs", jaer | {"dog/cifar10_dog_3.aedat": jaer["dog/cifar10_dog_3.aedat"][:-3]},
            "cifar10_dog_3.aedat: .*multiple of 8",
        ),
        "truncated mat": (
            "cifar10_dvs", matlab | {"dog/cifar10_dog_3.mat": matlab["dog/cifar10_dog_3.mat"][:-99]},
            "cifar10_dog_3.mat: .*truncated",
        ),
        "missing recording": (
            "cifar10_dvs", {n: d for n, d in jaer.items() if n != "dog/cifar10_dog_3.aedat"},
            "9 recordings of dog, of others 10",
        ),
    }[name]  # fmt: skip


WRONG = [
    "truncated wav", "wav without a header", "empty wav", "wrong sample rate", "odd name", "no test", "twice",
    "truncated bin", "empty bin", "pixel outside", "disorder", "misplaced bin", "missing list", "missing clip",
    "no noise", "short noise", "mini with more words", "aedat of another version", "truncated aedat", "truncated mat",
    "missing recording",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_file_is_named_and_nothing_is_left_behind(wrong, tmp_path):
    name, files, message = damaged(wrong)
    source = write(tmp_path / "source", files)
    with pytest.raises(ValueError, match=rf"^source: .*{message}"):
        prepare(name, tmp_path / "data", source, quiet=True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("wrong", ["truncated", "flipped"])
def test_a_bad_archive_is_named_and_nothing_is_left_behind(form, wrong, tmp_path):
    pack = {"zip": zipped, "tar": tarred}[form]
    source = pack(tmp_path / ("fsdd.zip" if form == "zip" else "fsdd.tar.gz"), spoken_digits())
    data = bytearray(source.read_bytes())
    if wrong == "truncated":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(ValueError, match=rf"source: {source}.* is corrupt or truncated"):
        prepare("fsdd", tmp_path / "data", source, quiet=True)
    assert not (tmp_path / "data").exists()


def test_what_a_killed_preparation_left_is_never_read_and_cleared_by_the_next(tmp_path, monkeypatch):
    source = write(tmp_path / "source", spoken_digits())
    data = tmp_path / "data"

    # Killed: no exception runs through the writer, so nothing of it is cleared.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr("etils.epath.gpath.PosixGPath.rmtree", lambda *_, **__: None)
    broken = spoken_digits() | {"recordings/9_zoe_5.wav": b""}
    with pytest.raises(ValueError, match="9_zoe_5"):
        prepare("fsdd", data, write(tmp_path / "broken", broken), quiet=True)
    monkeypatch.undo()
    assert list((data / "fsdd").glob("incomplete.*"))
    with pytest.raises(FileNotFoundError, match="'fsdd' is not prepared"):
        load("fsdd", data)
    prepare("fsdd", data, source, quiet=True)
    assert [path.name for path in (data / "fsdd").iterdir()] == ["1.0.0"]
    assert [path.name for path in data.iterdir()] == ["fsdd"]


def test_a_prepared_set_is_left_alone(tmp_path):
    source = write(tmp_path / "source", spoken_digits())
    first = prepare("fsdd", tmp_path, source, quiet=True)
    before = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert prepare("fsdd", tmp_path, source, quiet=True) == first
    assert before == {path.name: path.stat().st_mtime_ns for path in first.iterdir()}


def test_digits_are_prepared_when_they_are_loaded(tmp_path, capfd):
    data = load("digits", tmp_path)
    assert (len(data.train), len(data.test)) == (1442, 355)
    assert data.train.example.shape == (8, 8, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert capfd.readouterr().out == ""
    np.testing.assert_array_equal(load("digits", tmp_path).test.x, data.test.x)


def test_the_command_prepares_and_says_how_much(tmp_path, capsys):
    source = write(tmp_path / "source", spoken_digits())
    command.main(["fsdd", "--source", str(source), "--data-dir", str(tmp_path / "data")])
    assert "fsdd: 40 test, 40 train examples in" in capsys.readouterr().out.replace(
        "40 train, 40 test", "40 test, 40 train"
    )
    info = json.loads((tmp_path / "data" / "fsdd" / "1.0.0" / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fsdd"], "--source: 'fsdd' is made from the Free Spoken Digit Dataset"),
        (["digitz"], "name: there is no 'digitz'; choose one of"),
        (["digits", "--source", "."], "--source: 'digits' needs none"),
        (["fsdd", "--source", "/nowhere"], "--source: there is no /nowhere"),
        (["nmnist_small"], "'nmnist_small' cannot be prepared here"),
        (["mnist"], "needs TensorFlow and a network"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preparing.importlib.util, "find_spec", lambda name: None)  # no TensorFlow
    with pytest.raises(SystemExit) as end:
        command.main([*arguments, "--data-dir", str(tmp_path / "data")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "data").exists()


def test_the_commands_help_names_every_set_that_it_prepares(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(name in text for name, known in SETS.items() if known.source or known.stock)
