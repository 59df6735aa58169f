"""The command line end to end, on real images: what it leaves behind, and what it refuses before training."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import bsojax
from experiments import presets, run_folder, seeds
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.train import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A short run with its control."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    main(["digits", "--output", str(folder), "--epochs", "2", "--data-dir", str(data_dir), "--batch-size", "48"])
    return folder


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_digits_are_all_there_and_split_the_same_way_for_ever(data_dir):
    data = load("digits", data_dir)
    assert (len(data.train_x), len(data.test_x)) == (1442, 355)
    assert data.train_x.shape[1:] == (8, 8, 1)
    assert (data.train_x.min(), data.train_x.max()) == (0, 1)
    assert np.all(np.bincount(data.test_y) >= 34)  # a fifth of each class
    images = {image.tobytes() for image in data.train_x} | {image.tobytes() for image in data.test_x}
    assert len(images) == 1797
    again = load("digits", data_dir)
    np.testing.assert_array_equal(data.test_x, again.test_x)


def test_holding_out_leaves_the_test_images_alone(data_dir):
    data = load("digits", data_dir)
    held = hold_out(data)
    assert len(held.train_x) + len(held.test_x) == len(data.train_x)
    test = {image.tobytes() for image in data.test_x}
    assert not test & {image.tobytes() for image in (*held.train_x, *held.test_x)}


def test_a_run_leaves_settings_records_model_and_picture(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.json",
        "curves.png",
        "metrics.jsonl",
        "model.msgpack",
        "summary.json",
    }
    config = read(finished, "config.json")
    assert config["name"] == "digits"
    assert config["config"]["epochs"] == 2
    assert config["versions"]["jax"] == jax.__version__
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(record["flips"] > 0 and 0 < record["spike_rate"] < 1 for record in records)
    assert records[-1]["loss"] < records[0]["loss"]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_judged_beside_its_frozen_control(finished):
    results = read(finished, "summary.json")["results"]
    assert set(results) == {"t-bso calibrated", "frozen control"}
    assert results["frozen control"]["flip_ratio"] == 0
    assert results["t-bso calibrated"]["accuracy"] > 0.8
    assert results["t-bso calibrated"]["accuracy"] > results["frozen control"]["accuracy"] + 0.1


def test_the_saved_model_is_the_one_that_was_evaluated(finished, data_dir):
    variables = run_folder.load_model(finished / "model.msgpack")
    model = presets.make_model(CONFIGS["digits"][1], 10)
    data = load("digits", data_dir)

    @jax.jit
    def predict(variables, x):
        neurons, total = {}, 0.0
        for _ in range(4):
            logits, changed = model.apply({**variables, **neurons}, x, mutable=["neurons"])
            neurons, total = changed, total + logits
        return total.argmax(-1)

    accuracy = np.mean(predict(variables, data.test_x) == data.test_y)
    summary = read(finished, "summary.json")
    np.testing.assert_allclose(accuracy, summary["results"]["t-bso calibrated"]["accuracy"], atol=1e-6)
    signs = sum(leaf.size for leaf in jax.tree.leaves(variables["signs"]))
    assert all(leaf.dtype == bool for leaf in jax.tree.leaves(variables["signs"]))
    assert summary["memory"]["signs"] == signs
    reals = 4 * sum(leaf.size for name in ("params", "batch_stats") for leaf in jax.tree.leaves(variables[name]))
    assert (finished / "model.msgpack").stat().st_size < signs / 8 + reals + 2048


def test_the_same_seed_gives_the_same_run(finished, data_dir, tmp_path):
    arguments = ["--epochs", "2", "--data-dir", str(data_dir), "--batch-size", "48", "--no-control"]
    main(["digits", "--output", str(tmp_path / "again"), *arguments])
    assert (tmp_path / "again" / "model.msgpack").read_bytes() == (finished / "model.msgpack").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "bso", "--preset", "paper", "--trace", "none"],
        ["--optimizer", "bso", "--binary-ends", "--trace", "ndot"],
        ["--preset", "paper", "--threshold", "0.01", "--b1", "0.99", "--b2", "0.999", "--trace", "ndot-released"],
        ["--frozen", "--num-steps", "1", "--validation"],
    ],
    ids=" ".join,
)
def test_every_option_trains(options, data_dir, tmp_path):
    main(["digits", "--output", str(tmp_path / "run"), "--epochs", "1", "--data-dir", str(data_dir), "--batch-size",
          "128", "--no-control", *options])  # fmt: skip
    (result,) = read(tmp_path / "run", "summary.json")["results"].values()
    assert np.isfinite(result["loss"])
    assert (result["flip_ratio"] > 0) == ("--frozen" not in options)


bad_settings = {
    "num-steps": (["--num-steps", "0"], "--num-steps: must be at least 1"),
    "epochs": (["--epochs", "0"], "--epochs: must be at least 1"),
    "batch-size": (["--batch-size", "-3"], "--batch-size: must be at least 1"),
    "batch larger than the data": (["--batch-size", "5000"], "5000 is larger than the 1442 training images"),
    "negative threshold": (["--threshold", "-1"], "--threshold: must be >= 0"),
    "NaN threshold": (["--threshold", "nan"], "--threshold: must be >= 0, got nan"),
    "b1": (["--b1", "1"], "--b1: must be in [0, 1), got 1"),
    "b2": (["--b2", "-0.1"], "--b2: must be in [0, 1)"),
    "seed": (["--seed", "-1"], "--seed: must be in"),
    "learning rate": (["--learning-rate", "inf"], "--learning-rate: must be a finite number"),
    "unknown data set": (["--dataset", "digitz"], "dataset: there is no 'digitz'; choose one of cifar10,"),
    "data set not here": (["--dataset", "cifar100"], "dataset: 'cifar100' is not prepared in"),
}


@pytest.mark.parametrize(("options", "message"), bad_settings.values(), ids=bad_settings.keys())
def test_a_bad_setting_ends_with_one_message_and_no_folder(options, message, data_dir, tmp_path, capsys):
    load("digits", data_dir)
    start = time.perf_counter()
    with pytest.raises(SystemExit) as end:
        main(["digits", "--output", str(tmp_path / "run"), "--data-dir", str(data_dir), *options])
    assert time.perf_counter() - start < 20  # a data set that is missing must not wait for the network
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"download_and_prepare\(\)") as error:
        load("mnist", tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "tfds.builder('mnist'" in str(error.value)


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, data_dir, capsys):
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(SystemExit):
        main(["digits", "--output", str(finished), "--data-dir", str(data_dir)])
    assert "already holds a run; choose another folder" in capsys.readouterr().err
    assert (finished / "summary.json").read_bytes() == before


def test_an_unknown_config_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["digitz"])
    assert "digits" in capsys.readouterr().err


def test_the_default_job_as_a_user_runs_it(data_dir, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, "-m", "experiments.train", "digits", "--output", str(tmp_path / "run"), "--no-control"]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Result at the last epoch" in done.stdout
    assert "signs, packed (as stored)" in done.stdout
    assert read(tmp_path / "run", "summary.json")["results"]["t-bso calibrated"]["accuracy"] > 0.97


def test_the_frozen_control_and_the_flips_in_the_committed_results():
    result = json.loads((ROOT / "docs" / "results" / "digits.json").read_text())
    rows = result["rows"]
    assert all([run["seed"] for run in row["runs"]] == [0, 1, 2] for row in rows.values())
    default = rows["T-BSO, calibrated"]
    assert default["mean"] >= 0.975
    assert default["mean"] >= rows["frozen signs"]["mean"] + 0.1
    for row in rows.values():
        values = [run["eval_accuracy"] for run in row["runs"]]
        np.testing.assert_allclose([row["mean"], row["deviation"]], [np.mean(values), np.std(values, ddof=1)])
    assert f"{default['mean']:.2%}" in seeds.markdown(result)


def test_the_calibrated_schedules_end_at_zero_and_keep_their_distance():
    config = CONFIGS["digits"][1]
    assert bsojax.noise_threshold(presets.CALIBRATED_B1, presets.CALIBRATED_C) > presets.PAPER_THRESHOLD
    remaining = presets._cosine(100)
    np.testing.assert_allclose([remaining(0), remaining(50), remaining(100), remaining(200)], [1, 0.5, 0, 0], atol=1e-6)
    assert config.preset == "calibrated"
