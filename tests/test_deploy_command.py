"""The command that takes runs to devices: what it writes is what it says, and what cannot be is told in one line."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import optax
import pytest

import bsojax
from bsojax.deploy import IntegerNetwork
from experiments import build, deploy, networks, train
from experiments.config import Config, as_json
from experiments.configs import CONFIGS
from experiments.data import SETS, MemorySplit, load
from experiments.data.loading import default_folder
from experiments.data.parts import write_parts
from experiments.data.stored import pixels
from experiments.deploy import main
from experiments.deploying import forms
from experiments.deploying.inputs import Grid, grid_of, seen
from experiments.deploying.trained import trained

pytestmark = pytest.mark.slow  # networks are trained, and compiled

HAS_COMPILER = shutil.which("cc") is not None
SMALL = {
    "digits": Config("digits", channels=(8, "M", 16), num_steps=2, norm="shared"),
    "fsdd": Config("fsdd", channels=("M", 8, "M", 8), num_steps=2),
    "nmnist_small": Config("nmnist_small", channels=("M", 8, "M", 16), num_steps=3),
}
"""Networks that compile in no time, of images, of spectra, and of event sequences."""


def stored(name, count):
    """Examples as a set stores them, at random."""
    rng = np.random.default_rng(count)
    x = {
        "digits": lambda: rng.integers(0, 17, (count, 8, 8, 1), np.uint8),
        "fsdd": lambda: rng.normal(-40, 20, (count, 32, 32, 1)).astype(np.float32),
        "nmnist_small": lambda: np.minimum(rng.geometric(0.5, (count, 3, 34, 34, 2)) - 1, 255).astype(np.uint8),
    }[name]()
    return MemorySplit(x, rng.integers(0, 10, count))


@pytest.fixture(scope="session")
def small_data(made_once):
    def fill(folder):
        for name in SMALL:
            write_parts(folder / name, {"train": stored(name, 40), "test": stored(name, 23)})

    return made_once("small-data", fill)


def left(folder, data_dir, config):
    """A run's folder as a training leaves it, without a training."""
    folder.mkdir(parents=True)
    config = dataclasses.replace(config, data_dir=data_dir)
    (folder / "config.json").write_text(json.dumps({"name": config.dataset, "config": as_json(config)}))
    data = load(config.dataset, data_dir, config.num_steps)
    model = networks.make_model(config, data.num_classes, bsojax.LIF)
    frame = build.frame_of(config, data)
    state = bsojax.init(model, optax.identity(), jax.random.key(0), frame)
    frames = [x for x, _ in seen(data, data.train)]
    state = bsojax.refresh_statistics(model, state, frames, config.num_steps)
    bsojax.save_model(folder / "model.bsojax", model, state)


@pytest.fixture(scope="session")
def runs(made_once, small_data):
    def fill(folder):
        for name, config in SMALL.items():
            left(folder / name, small_data, config)

    return made_once("small-runs", fill)


@pytest.fixture(autouse=True)
def _pictures_stay_out(runs, tmp_path, monkeypatch):
    """Tests read the runs alone: pictures go elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in SMALL:
        (tmp_path / name).mkdir()
        for file in (runs / name).iterdir():
            shutil.copy(file, tmp_path / name)


@pytest.fixture
def untimed(monkeypatch):
    """Times cost a process."""
    monkeypatch.setattr(deploy, "measured", lambda *_: {"JAX": 0.5, "C": 2e-6})


def cells(text):
    """The rows of the printed table: name, value and share."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in rows}


def number(cell):
    return int(re.match(r"[\d,]+", cell)[0].replace(",", ""))


@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")
def test_every_form_is_written_and_is_the_same_network(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--c", "out/c", "--net", "out/a/net.bsojax", "--nir", "out/b/n.nir", "--stablehlo", "out/m.hlo"]
    main(["digits", *options, "--check"])
    told = capsys.readouterr().out
    rows = cells(told)
    found = trained(tmp_path / "digits")
    x = np.asarray(found.data.test.x).astype(int)
    network = bsojax.deploy.load(out / "a" / "net.bsojax")
    logits, spikes = network.run(x)
    y = np.asarray(found.data.test.y)
    report = network.report(found.model, found.state, x)

    assert rows["test accuracy, whole numbers (C)"][0] == f"{np.mean(logits.argmax(1) == y):.2%}"
    judged = bsojax.make_eval_step(found.model, 2)(found.state, (x / 16).astype(np.float32), y)
    assert rows["test accuracy, JAX"][0] == f"{float(judged['accuracy']):.2%}"
    assert "test accuracy, JAX on rounded inputs" not in rows
    total = sum(each.size for each in spikes.values())
    assert rows["predictions that differ from JAX"][0] == f"{report.agreement.predictions_differ} of 23"
    assert rows["spikes that differ from JAX"][0] == f"{report.agreement.spikes_differ} of {total:,}"
    assert rows["logits in C that differ from NumPy"][0] == rows["spikes in C that differ from NumPy"][0] == "0"

    sizes = {
        "float32 weights, gains and shifts": report.float32_bytes,
        "C: weights and tables (flash)": report.constant_bytes,
        "C: scratch memory (RAM)": report.scratch_bytes,
        "whole numbers, signs at one bit": (out / "a" / "net.bsojax").stat().st_size,
        "StableHLO program": (out / "m.hlo").stat().st_size,
        "NIR graph, float32": (out / "b" / "n.nir").stat().st_size,
        "trained network, signs at one bit (model.bsojax)": (tmp_path / "digits" / "model.bsojax").stat().st_size,
    }
    for name, size in sizes.items():
        assert number(rows[name][0]) == size
        assert rows[name][1] == f"{size / report.float32_bytes:.1%}"

    program = jax.export.deserialize(bytearray((out / "m.hlo").read_bytes()))
    answers = program.call((x[:5] / 16).astype(np.float32))
    np.testing.assert_allclose(answers, logits[:5] * network.logit_scale, rtol=1e-4, atol=1e-4)
    import nir

    assert set(spikes) <= set(nir.read(out / "b" / "n.nir").nodes)
    assert (out / "c" / "net.c").read_text() == network._c_source("net").source
    assert (out / "c" / "bytes.png").read_bytes().startswith(b"\x89PNG")
    times = [cells(told)[name][0] for name in rows if "one core" in name]
    assert len(times) == 2
    assert all(re.fullmatch(r"[\d.]+ (us|ms|s)", each) for each in times)


@pytest.mark.parametrize("name", ["fsdd", "nmnist_small"])
def test_spectra_are_rounded_and_event_frames_are_not(name, untimed, tmp_path, capsys):
    main([name, "--net", "net", "--examples", "7", "--membrane-bits", "16"])
    told = capsys.readouterr().out
    rows, network = cells(told), bsojax.deploy.load("net")
    assert "7 test examples" in told
    assert network.membrane_bits == 16
    if name == "fsdd":
        assert (network.input_min, network.input_max, network.is_sequence) == (-127, 127, False)
        assert "test accuracy, JAX on rounded inputs" in rows
        assert "rounded" in told
    else:
        assert (network.input_scale, network.input_min, network.input_max, network.is_sequence) == (8, 0, 8, True)
        assert "test accuracy, JAX on rounded inputs" not in rows
        assert any("an example of 3 frames" in row for row in rows)
    assert [rows[row][0] for row in rows if "one core" in row] == ["500 ms", "2 us"]
    assert (tmp_path / name / "bytes.png").exists()
    assert "logits in C that differ from NumPy" not in rows  # nobody asked


def test_without_a_compiler_it_says_so_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    main(["digits", "--check", "--c", "c"])
    told = capsys.readouterr().out
    assert "there is no C compiler" in told
    rows = cells(told)
    assert "test accuracy, whole numbers (NumPy)" in rows
    assert "logits in C that differ from NumPy" not in rows
    assert [rows[name][0] for name in rows if "one core, C" in name] == ["no compiler"]
    assert (tmp_path / "c" / "net.c").exists()


@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")
@pytest.mark.parametrize("wrong", ["logits", "spikes"])
def test_c_that_differs_from_the_reference_fails(wrong, untimed, capsys, monkeypatch):
    right = IntegerNetwork.run_c

    def broken(network, x, **options):
        logits, spikes = right(network, x, **options)
        if wrong == "logits":
            logits[0, 0] += 1
        else:
            next(iter(spikes.values()))[0, 0] ^= True
        return logits, spikes

    monkeypatch.setattr(IntegerNetwork, "run_c", broken)
    with pytest.raises(SystemExit) as caught:
        main(["digits", "--check", "--examples", "3"])
    assert caught.value.code == 1
    told = capsys.readouterr()
    assert told.err == "error: C differs from the NumPy reference.\n"
    assert number(cells(told.out)[f"{wrong} in C that differ from NumPy"][0]) > 0


def settings(folder, **changes):
    about = json.loads((folder / "config.json").read_text())
    about["config"] |= changes
    (folder / "config.json").write_text(json.dumps(about))


def damaged(folder, data_dir):
    (folder / "config.json").write_text('{"name": "digits", "config": {"data')


def unfinished(folder, data_dir):
    (folder / "model.bsojax").unlink()


def of_another(folder, data_dir):
    settings(folder, channels=[8, "M", 32])


def without_data(folder, data_dir):
    settings(folder, dataset="cifar100")


def recurrent(folder, data_dir):
    shutil.rmtree(folder)
    left(folder, data_dir, dataclasses.replace(SMALL["nmnist_small"], network="rnn", channels=(8,)))


def per_step(folder, data_dir):
    shutil.rmtree(folder)
    left(folder, data_dir, dataclasses.replace(SMALL["digits"], norm="per-step"))


def gone(folder, data_dir):
    shutil.rmtree(folder)


def as_it_is(folder, data_dir):
    pass


REFUSED = {
    "no folder": (gone, [], "RUN: there is no run in bad: it holds no config.json."),
    "damaged settings": (damaged, [], "RUN: bad/config.json is damaged"),
    "no network yet": (unfinished, [], "finish it: python -m experiments.train --resume --output bad"),
    "another network": (of_another, [], "holds another network"),
    "data that are not here": (without_data, [], "dataset: 'cifar100' is not prepared"),
    "a recurrent network": (recurrent, [], "cannot be deployed"),
    "norms that NIR has no words for": (per_step, ["--nir", "n.nir"], "cannot be expressed in NIR"),
    "no examples": (as_it_is, ["--examples", "0"], "--examples: must be at least 1, got 0."),
    "inputs of one bit": (as_it_is, ["--input-bits", "1"], "--input-bits: must be in 2 .. 16, got 1."),
    "narrow membranes": (as_it_is, ["--membrane-bits", "4"], "membrane_bits: must be in [8, 32], got 4."),
    "a file for a folder": (as_it_is, ["--c", "bad/config.json"], "bad/config.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_told_in_one_line_before_anything_is_written(case, small_data, tmp_path, capsys):
    make, options, message = REFUSED[case]
    shutil.copytree(tmp_path / "digits", tmp_path / "bad")
    make(tmp_path / "bad", small_data)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as caught:
        main(["bad", *([] if "--c" in options else ["--c", "c"]), "--net", "net", *options])
    told = capsys.readouterr()
    assert caught.value.code == 2
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert message in told.err
    assert told.err.count("\n") == (3 if case == "data that are not here" else 1)  # how to bring them
    if case != "a file for a folder":
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", [name for name, known in SETS.items() if known.front_end.levels is not None])
def test_inputs_of_known_sets_lie_on_their_grids(name):
    known, values = SETS[name], np.arange(17 if name == "digits" else 256, dtype=np.uint8)
    time = () if known.to_stored is pixels else (1,)
    inputs = np.asarray(known.front_end.evaluate(values.reshape(1, *time, -1, 1, 1)))
    grid = Grid(known.front_end.levels, 0, known.front_end.levels, True)
    assert grid.whole(inputs).max() == grid.high
    np.testing.assert_allclose(grid.real(grid.whole(inputs)), inputs, rtol=2e-7)  # XLA multiplies by one over it


def test_a_grid_reaches_as_far_as_training_inputs_and_rounds_to_the_nearest(small_data):
    data = load("fsdd", small_data, 2)
    inputs = np.concatenate([x for x, _ in seen(data, data.train)])
    for bits in (4, 8, 12):
        grid = grid_of(data, bits)
        whole = grid.whole(inputs)
        assert np.max(np.abs(whole)) == grid.high == -grid.low == 2 ** (bits - 1) - 1
        assert np.max(np.abs(grid.real(whole) - inputs)) <= 0.5 / grid.scale + 1e-6
    assert grid.whole(np.array([1e9, -1e9])).tolist() == [grid.high, grid.low]


def test_networks_of_all_rules_have_neurons_that_evaluate_alike(small_data, tmp_path):
    config = dataclasses.replace(SMALL["digits"], optimizer="bptt-sgd", data_dir=small_data)
    left(tmp_path / "bptt", small_data, config)
    found = trained(tmp_path / "bptt")
    data = load("digits", small_data)
    model = networks.make_model(config, 10, build.make_neuron(config))
    x = np.asarray(data.front_end.evaluate(data.test.x))
    np.testing.assert_array_equal(
        bsojax.predict(found.model, found.state, x, 2), bsojax.predict(model, found.state, x, 2)
    )
    forms.whole(found, grid_of(data, 8), 32)


JOBS = {
    "digits": ("digits", []),
    "fashion-mnist": ("fashion_mnist", ["--epochs", "1", "--train-examples", "2000"]),
    "spoken-digits": ("fsdd", ["--epochs", "3"]),
    "n-mnist": ("nmnist_small", ["--epochs", "2"]),
}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs a C compiler")
@pytest.mark.parametrize("job", JOBS)
def test_trained_networks_decide_as_jax_does(job, digits_dir, capsys):
    name, options = JOBS[job]
    folder = digits_dir if name == "digits" else default_folder()
    if not (folder / name).exists():
        pytest.skip(f"{name} is not prepared on this machine")
    train.main([job, "--output", "run", "--no-control", "--data-dir", str(folder), *options])
    assert CONFIGS[job][1].dataset == name
    capsys.readouterr()
    main(["run", "--check", "--examples", "1000"])
    rows = cells(capsys.readouterr().out)
    differ, spikes = map(number, rows["spikes that differ from JAX"][0].split(" of "))
    assert differ <= spikes / 1e4
    differ, examples = map(number, rows["predictions that differ from JAX"][0].split(" of "))
    assert differ <= examples / 300
    assert rows["logits in C that differ from NumPy"][0] == rows["spikes in C that differ from NumPy"][0] == "0"
    accuracies = [float(rows[row][0].rstrip("%")) for row in rows if row.startswith("test accuracy")]
    assert max(accuracies) - min(accuracies) < 2
    assert min(accuracies) > 40


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert not caught.value.code
    told = capsys.readouterr().out
    for option in ("--c", "--net", "--nir", "--stablehlo", "--check", "--examples", "--input-bits", "--membrane-bits"):
        assert option in told
