"""The command line end to end, on real images: what it leaves behind, and what it refuses before training."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely
from hostile_files import as_earlier

import bsojax
from experiments import build, networks
from experiments.config import Config, as_json, of_json
from experiments.configs import CONFIGS
from experiments.data import SETS, load
from experiments.evaluation import evaluate
from experiments.loop import train
from experiments.train import main

ROOT = Path(__file__).resolve().parents[1]


RUN = ["--num-steps", "2", "--epochs", "3", "--batch-size", "48"]
"""Options of the short run."""


@pytest.fixture(scope="session")
def data_dir(digits_dir):
    return digits_dir


@pytest.fixture(scope="module", autouse=True)
def config():
    """The digits' config with fewer layers than the default, which compile in a third of the time."""
    summary, config = CONFIGS["digits"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CONFIGS, "digits", (summary, dataclasses.replace(config, channels=(16, "M", 64))))
        yield CONFIGS["digits"][1]


@pytest.fixture(scope="module")
def finished(config, data_dir, made_once):
    """A short run with its control; tests read it alone."""
    run = ["--data-dir", str(data_dir), *RUN]
    return made_once("short-run", lambda folder: main(["digits", "--output", str(folder), *run]))


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_run_leaves_settings_records_model_and_picture(finished):
    assert {path.name for path in finished.iterdir()} == {
        "checkpoints",
        "config.json",
        "control",
        "curves.png",
        "layers.png",
        "lock",
        "metrics.jsonl",
        "model.bsojax",
        "starts.jsonl",
        "summary.json",
    }
    config = read(finished, "config.json")
    assert config["name"] == "digits"
    assert config["config"]["epochs"] == 3
    assert config["versions"]["jax"] == jax.__version__
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert all(record["flips"] > 0 and 0 < record["spike_rate"] < 1 for record in records)
    assert records[-1]["loss"] < records[0]["loss"]
    for picture in ("curves.png", "layers.png"):
        assert (finished / picture).read_bytes().startswith(b"\x89PNG")


def test_records_hold_every_layer_and_the_last_names_none_as_dead(finished):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        assert set(record["spike_rates"]) == {"neuron_0", "neuron_1"}
        np.testing.assert_allclose(np.mean(list(record["spike_rates"].values())), record["spike_rate"], rtol=1e-6)
        assert record["flip_ratios"] == {"conv_1/kernel": pytest.approx(record["flip_ratio"])}  # the only binary layer
    for result in read(finished, "summary.json")["results"].values():
        assert (result["dead_layers"], result["saturated_layers"]) == ([], [])


@pytest.mark.slow
def test_a_run_with_dead_layers_names_them_and_what_to_do(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "make_neuron", lambda config: functools.partial(bsojax.LIF, v_threshold=1e6))
    summary, config = CONFIGS["digits"]
    small = dataclasses.replace(config, network="mlp", channels=(8, 8))
    monkeypatch.setitem(CONFIGS, "digits", (summary, small))
    short = ["--epochs", "1", "--num-steps", "1", "--batch-size", "700", "--no-control"]
    main(["digits", "--output", str(tmp_path), "--data-dir", str(data_dir), *short])
    (result,) = read(tmp_path, "summary.json")["results"].values()
    assert result["dead_layers"] == ["neuron_0", "neuron_1"]
    assert result["saturated_layers"] == []
    told = capsys.readouterr().out
    assert "dead at the end, without a single spike: neuron_0, neuron_1." in told
    assert "lower its v_threshold" in told


def test_a_run_is_judged_beside_its_frozen_control(finished):
    results = read(finished, "summary.json")["results"]
    assert set(results) == {"T-BSO, calibrated", "frozen control"}
    assert results["frozen control"]["flip_ratio"] == 0
    assert results["T-BSO, calibrated"]["accuracy"] > 0.8
    assert results["T-BSO, calibrated"]["accuracy"] > results["frozen control"]["accuracy"] + 0.1


def test_the_saved_model_is_the_one_that_was_evaluated_and_needs_no_config(finished, data_dir):
    saved = bsojax.load_model(finished / "model.bsojax")
    (x, y) = next(load("digits", data_dir).test.batches(355))
    metrics = bsojax.make_eval_step(saved.model, 2)(saved.state, x / np.float32(16), y)
    summary = read(finished, "summary.json")
    np.testing.assert_allclose(metrics["accuracy"], summary["results"]["T-BSO, calibrated"]["accuracy"], atol=1e-6)
    signs = sum(leaf.size for leaf in jax.tree.leaves(saved.variables["signs"]))
    assert all(leaf.dtype == bool for leaf in jax.tree.leaves(saved.variables["signs"]))
    assert summary["memory"]["signs"] == signs
    reals = 4 * sum(leaf.size for name in ("params", "batch_stats") for leaf in jax.tree.leaves(saved.variables[name]))
    assert (finished / "model.bsojax").stat().st_size < signs / 8 + reals + 2048


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(finished, data_dir, tmp_path):
    main(["digits", "--output", str(tmp_path / "again"), "--data-dir", str(data_dir), "--no-control", *RUN])
    assert (tmp_path / "again" / "model.bsojax").read_bytes() == (finished / "model.bsojax").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        *rarely(
            ["--optimizer", "bso", "--preset", "paper", "--trace", "none"],
            ["--preset", "paper", "--threshold", "0.01", "--b1", "0.99", "--b2", "0.999", "--trace", "ndot-released"],
            ["--optimizer", "bop", "--norm", "fast"],
            ["--optimizer", "ottt", "--no-refresh"],
            ["--optimizer", "ndot"],
            ["--optimizer", "sltt", "--binary-ends"],
            ["--network", "mlp", "--num-steps", "2"],
            ["--optimizer", "bptt-sgd", "--norm", "across-time", "--train-examples", "300"],
            ["--frozen", "--num-steps", "1", "--validation"],
            ["--optimizer", "bso-reset", "--norm", "shared", "--evaluations", "2"],
            ["--optimizer", "bso", "--binary-ends", "--trace", "ndot"],
        ),
        ["--optimizer", "bptt-adam", "--latent-learning-rate", "0.003", "--norm", "none"],
    ],
    ids=" ".join,
)
def test_every_option_trains(options, data_dir, tmp_path, monkeypatch):
    summary, config = CONFIGS["digits"]
    monkeypatch.setitem(CONFIGS, "digits", (summary, dataclasses.replace(config, channels=(16, "M", 16))))
    main(["digits", "--output", str(tmp_path / "run"), "--epochs", "1", "--data-dir", str(data_dir), "--batch-size",
          "128", "--no-control", *options])  # fmt: skip
    (result,) = read(tmp_path / "run", "summary.json")["results"].values()
    assert np.isfinite(result["loss"])
    assert (result["flip_ratio"] > 0) == ("--frozen" not in options)


bad_settings = {
    "num-steps": (["--num-steps", "0"], "--num-steps: must be at least 1"),
    "epochs": (["--epochs", "0"], "--epochs: must be at least 1"),
    "batch-size": (["--batch-size", "-3"], "--batch-size: must be at least 1"),
    "batch larger than the data": (["--batch-size", "5000"], "5000 is larger than the 1442 training examples"),
    "negative threshold": (["--threshold", "-1"], "--threshold: must be >= 0"),
    "NaN threshold": (["--threshold", "nan"], "--threshold: must be >= 0, got nan"),
    "b1": (["--b1", "1"], "--b1: must be in [0, 1), got 1"),
    "b2": (["--b2", "-0.1"], "--b2: must be in [0, 1)"),
    "seed": (["--seed", "-1"], "--seed: must be in"),
    "learning rate": (["--learning-rate", "inf"], "--learning-rate: must be a finite number"),
    "latent learning rate": (["--latent-learning-rate", "-1"], "--latent-learning-rate: must be a finite number"),
    "evaluations": (["--evaluations", "100"], "--evaluations: 100 per epoch are more than its batches"),
    "training examples": (["--train-examples", "0"], "--train-examples: must be at least 1"),
    "a trace through time": (["--optimizer", "bptt-adam", "--trace", "ottt"], "--trace: 'bptt-adam' differentiates"),
    "no model to start from": (["--start", "nowhere.msgpack"], "--start: there is no model at nowhere.msgpack"),
    "binary ends of a ResNet": (["--network", "resnet18", "--binary-ends"], "--binary-ends: 'resnet18' has real ends"),
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
    with pytest.raises(FileNotFoundError, match=r"python -m experiments.prepare mnist") as error:
        load("mnist", tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, data_dir, capsys):
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(SystemExit):
        main(["digits", "--output", str(finished), "--data-dir", str(data_dir)])
    assert "already holds a run; go on with it by --resume, or choose another folder" in capsys.readouterr().err
    assert (finished / "summary.json").read_bytes() == before


@pytest.mark.slow
def test_a_run_goes_on_by_its_folder_alone(finished, tmp_path, capsys):
    """Stopped after the first of three epochs: settings that were options are those of the run."""
    folder = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(folder / "control")
    (folder / "summary.json").unlink()
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    for name in names[1:]:
        shutil.rmtree(folder / "checkpoints" / name)
    main(["--resume", "--output", str(folder), "--no-control"])
    assert "continues from epoch 2, batch 0" in capsys.readouterr().out
    told = [
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (finished, folder)
    ]
    for record, other in zip(*told, strict=True):
        assert {**record, "seconds": 0} == {**other, "seconds": 0}
    assert len((folder / "starts.jsonl").read_text().splitlines()) == 2
    assert not (folder / "control").exists()


going_on = {
    "another setting": (["--resume", "--output", "RUN", "--epochs", "5"], "is another: --epochs was 3 and is 5."),
    "named, another setting": (["digits", "--resume", "--output=RUN", "--seed", "1"], "--seed was 0 and is 1."),
    "another config": (["n-mnist", "--resume", "--output", "RUN"], "is of the config 'digits', not 'n-mnist'."),
    "no run": (["--resume", "--output", "NONE"], "holds no run yet; name the config"),
    "no folder": (["--resume", "--output"], "--resume: name a config before all options"),
    "no name": (["--epochs", "3"], "--epochs: name a config before all options"),
}


@pytest.mark.parametrize(("words", "message"), going_on.values(), ids=going_on.keys())
def test_what_cannot_go_on_says_why(words, message, finished, tmp_path, capsys):
    places = {"RUN": str(finished), "NONE": str(tmp_path / "none")}
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file() and path.name != "lock"}
    with pytest.raises(SystemExit) as end:
        main([word.replace("RUN", places["RUN"]).replace("NONE", places["NONE"]) for word in words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.name in before} == before


def test_a_run_whose_settings_were_changed_does_not_go_on(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    path = folder / "config.json"
    whole = path.read_text()
    for name in ([], ["digits"]):
        for old, new in (('"epochs": 3', '"epochs": 7'), ('"config"', '"konfig"'), (whole[-50:], "")):
            assert whole.count(old) == 1
            path.write_text(whole.replace(old, new))
            with pytest.raises(SystemExit) as end:
                main([*name, "--resume", "--output", str(folder)])
            assert end.value.code == 2
            assert capsys.readouterr().err.startswith(f"error: --resume: {path} is damaged (")
    about = json.loads(whole)
    del about["checksum"]  # as older versions wrote it
    path.write_text(json.dumps(about))
    main(["--resume", "--output", str(folder)])
    assert "this run is done" in capsys.readouterr().out


def test_a_mistyped_option_is_looked_for_in_the_named_config_alone(capsys):
    with pytest.raises(SystemExit):
        main(["digits", "--epoch", "3"])
    error = capsys.readouterr().err
    assert "--epochs" in error
    assert "python -m experiments.train digits --help" in error
    assert "in python" not in error


def test_settings_survive_a_folder(tmp_path):
    every = [config for _, config in CONFIGS.values()]
    every.append(dataclasses.replace(every[0], start=Path("a/b"), data_dir=Path("c"), b1=0.5, frozen=True))
    for config in every:
        assert of_json(json.loads(json.dumps(as_json(config)))) == config


def test_an_unknown_config_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["digitz"])
    assert "digits" in capsys.readouterr().err


@pytest.mark.slow
def test_the_default_job_as_a_user_runs_it(data_dir, tmp_path):
    of_tests = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    environment = {key: value for key, value in os.environ.items() if key not in of_tests}
    command = [sys.executable, "-m", "experiments.train", "digits", "--output", str(tmp_path / "run"), "--no-control"]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "flips / weight / update, mean over the run" in done.stdout
    assert "signs, packed (as stored)" in done.stdout
    assert read(tmp_path / "run", "summary.json")["results"]["T-BSO, calibrated"]["accuracy"] > 0.97


def test_a_run_starts_from_a_saved_network_and_from_no_other(finished, data_dir, config, tmp_path):
    config = dataclasses.replace(config, num_steps=2, start=finished / "model.bsojax", data_dir=data_dir)
    data = load("digits", data_dir)
    run = build.prepare(config, data)
    accuracy = evaluate(run, run.state, data.test)["accuracy"]
    summary = read(finished, "summary.json")["results"]["T-BSO, calibrated"]
    np.testing.assert_allclose(accuracy, summary["accuracy"], atol=1e-6)
    with pytest.raises(ValueError, match=r"^--start: .*holds another network"):
        build.prepare(dataclasses.replace(config, channels=(8, 16)), data)
    earlier = tmp_path / "model.msgpack"
    earlier.write_bytes(as_earlier(run.state.variables))
    config = dataclasses.replace(config, start=earlier)
    chex.assert_trees_all_equal(build.prepare(config, data).state.variables, run.state.variables)
    with pytest.raises(ValueError, match=r"^--start: .*holds another network"):
        build.prepare(dataclasses.replace(config, channels=(8, 16)), data)


@pytest.mark.slow
def test_evaluations_split_an_epoch_and_count_the_optimizers_calls(data_dir):
    config = Config("digits", network="mlp", channels=(8, 8), epochs=1, evaluations=3, batch_size=200, num_steps=2)
    for optimizer, calls in (("t-bso", 2), ("bptt-adam", 1)):
        run = build.prepare(dataclasses.replace(config, optimizer=optimizer), load("digits", data_dir))
        _, records = train(run, lambda *_: None, lambda _: None)
        assert [record["updates"] for record in records] == [calls * batches for batches in (2, 5, 7)]
        assert records[-1]["epoch"] == 1


def test_the_calibrated_window_grows_closes_at_the_end_and_keeps_the_thresholds_distance_to_the_noise():
    config = Config("digits", num_steps=1, b1=0.9, growth=0.5, threshold=0.1)
    updates, rng = 200, np.random.default_rng(0)
    tx = config.rule().flip_optimizer(updates, num_steps=1, seed=0)
    update, signs = jax.jit(tx.update), {"kernel": jnp.ones((500,), bool)}
    (_, state), momentum = tx.init(signs), np.zeros(500)
    for count in range(updates + 1):
        grads = {"kernel": jnp.asarray(rng.standard_normal(500), jnp.float32)}
        deltas, (_, state) = update(grads, (optax.EmptyState(), state), signs)
        grads = {"kernel": grads["kernel"] / np.sqrt(np.mean(np.square(grads["kernel"])))}
        share = (1 - count / updates) / (10 + 0.5 * count)
        momentum = (1 - share) * momentum + share * np.asarray(grads["kernel"])
        np.testing.assert_allclose(state.momentum["kernel"], momentum, atol=1e-5)
        second = float(state.second_moment["kernel"][0] / state.second_moment_weight[0])
        threshold = 0.1 * np.sqrt(share / 2) * np.sqrt(second)
        clear = np.abs(momentum - threshold) > 1e-5
        np.testing.assert_array_equal((np.asarray(deltas["kernel"]) != 0)[clear], (momentum > threshold)[clear])


def test_a_model_of_each_network_and_norm_is_what_the_config_says():
    for network, kind in (("vgg", "SpikingVGG"), ("mlp", "SpikingMLP"), ("resnet18-small", "SpikingResNet")):
        config = dataclasses.replace(CONFIGS["digits"][1], network=network, norm="none")
        model = networks.make_model(config, 7, build.make_neuron(config))
        assert (type(model).__name__, model.num_classes, model.norm) == (kind, 7, bsojax.Affine)
        assert model.scale is bsojax.rsqrt_fan_in
    with pytest.raises(ValueError, match="channels: 'vgg' needs the width of each layer"):
        networks.make_model(dataclasses.replace(config, network="vgg", channels=()), 7, bsojax.LIF)


@pytest.mark.parametrize(
    ("summary", "config"),
    [
        pytest.param(*pair, id=name, marks=[pytest.mark.slow] if "vgg11" in name or "resnet" in name else [])
        for name, pair in CONFIGS.items()
    ],
)
def test_every_config_builds_its_network_and_optimizer_without_its_data(summary, config):
    config.check()
    assert summary.endswith(".")
    known = SETS[config.dataset]
    model = networks.make_model(config, known.num_classes, build.make_neuron(config))
    side, channels = {"imagenet2012": (224, 3), "cifar10_dvs": (48, 2), "nmnist_small": (34, 2)}.get(
        config.dataset, (32, 3 if "cifar" in config.dataset else 1)
    )
    image = (side, side, channels) if config.network != "rnn" else (32,)
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    tx = build.make_optimizer(config, 10)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x), jax.random.key(0))
    if config.channels == bsojax.models.VGG11:
        assert sum(leaf.size for leaf in jax.tree.leaves(state.signs)) == 9_216_000
    y = jax.ShapeDtypeStruct((2,), jnp.int32)
    _, metrics = jax.eval_shape(build.make_step(config, model, tx), state, x, y)
    assert set(metrics) == {"loss", "accuracy", "flips", "spikes", "skipped"}
