"""The plan of a GPU: it fits its time, its commands exist, and a run from a bare tree survives being killed."""

import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator.jobs import LIMITS, Options, jobs
from experiments.data import MemorySplit
from experiments.data.parts import write_parts
from experiments.gpu_plan import __main__ as command
from experiments.gpu_plan import process, training
from experiments.gpu_plan.images import read_images
from experiments.gpu_plan.plan import Step, make_plan

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300

BARE = """
import builtins, importlib.util, sys

HERE = {"bsojax", "experiments", "benchmarks", "__main__"}
THERE = HERE | {"jax", "jaxlib", "flax", "optax", "chex", "numpy", "orbax", "msgpack"} | set(sys.stdlib_module_names)
ABSENT = {"tensorflow_datasets", "tyro", "PIL", "sklearn", "matplotlib", "grain", "array_record", "tensorboardX"}
original = builtins.__import__


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not on the bare machine", name=name)


def bare(name, globals=None, locals=None, fromlist=(), level=0):
    importer, root = (globals or {}).get("__name__", "").partition(".")[0], name.partition(".")[0]
    if importer in HERE and not level and root not in THERE:
        raise ModuleNotFoundError(f"{name} is not on the bare machine", name=name)
    return original(name, globals, locals, fromlist, level)


sys.meta_path.insert(0, Refuse())
builtins.__import__ = bare
"""


def plan(minutes=25.0, **options):
    return make_plan(minutes, Path("data"), Path("runs"), **options)


def write_images(folder, train, test, largest=2**24):
    random = np.random.default_rng(0)

    def make(count):
        x = random.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return MemorySplit(x, random.integers(0, 10, count))

    return write_parts(folder, {"train": make(train), "test": make(test)}, largest)


@pytest.mark.parametrize("minutes", [5.0, 25.0])
def test_the_steps_fit_into_the_time(minutes):
    seconds = [step.seconds for step in plan(minutes)]
    assert min(seconds) > 0
    assert 0.9 * 60 * minutes < sum(seconds) <= 60 * minutes


@pytest.mark.parametrize("rehearse", [False, True])
def test_every_command_exists_and_takes_its_arguments(rehearse):
    steps = plan(rehearse=rehearse)
    assert len({step.writes for step in steps}) == len(steps)
    for step in steps:
        spec = importlib.util.find_spec(step.module)
        name = f"{step.module}.__main__" if spec.submodule_search_locations else step.module
        given = importlib.import_module(name).parser().parse_args(step.arguments)
        assert given.output == step.writes


def test_the_dry_run_names_every_command_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command.main([])
    told = capsys.readouterr().out
    for step in make_plan(25.0, Path("data") / "cifar10", Path("runs") / "gpu"):
        assert " ".join(step.command) in told
    assert not any(tmp_path.iterdir())


def test_the_trainings_are_the_networks_and_rules_of_the_issue():
    configs = {(rule, T): training.config_of(rule, T) for rule in training.SETTINGS for T in (2, 4)}
    for config in configs.values():
        config.check()
        assert (len(config.channels), config.batch_size, config.dataset) == (11, 128, "cifar10")
    labels = {rule: config.label for (rule, _), config in configs.items()}
    assert labels == {"calibrated": "T-BSO, calibrated", "paper": "T-BSO, paper", "ottt-adam": "OTTT"}


def test_as_many_epochs_as_fit():
    cost = {"start": 10.0, "epoch": 2.0}
    assert training.fitting(cost, 10 + 2.2 * 7 + 0.1) == 7
    assert training.fitting(cost, 3.0) == 1


def test_another_rules_cost_is_taken_and_grows_with_the_time_steps(tmp_path):
    images, cost = {"train": 30}, {"measured": True, "start": 10.0, "epoch": 2.0}
    assert training.known(tmp_path, 2, images) is None
    (tmp_path / "training-T2-a.json").write_text(
        json.dumps({"config": {"num_steps": 2}, "images": images, "cost": cost})
    )
    assert training.known(tmp_path, 2, images) == {"start": 10.0, "epoch": 2.0}
    assert training.known(tmp_path, 4, images) == {"start": 10.0, "epoch": 4.0}
    assert training.known(tmp_path, 2, {"train": 40}) is None


def test_images_of_the_parts_that_are_there(tmp_path):
    files = write_images(tmp_path, 40, 10, largest=10 * 3072)
    assert read_images(tmp_path)[1] == {"train": 40, "train parts": "4 of 4", "test": 10, "test parts": "1 of 1"}
    files[1].unlink()
    data, found = read_images(tmp_path)
    assert len(data.train) == found["train"] == 30
    assert found["train parts"] == "3 of 4"
    files[-1].unlink()
    with pytest.raises(FileNotFoundError, match="no part of 'test'"):
        read_images(tmp_path)


def test_a_training_on_other_images_is_refused(tmp_path):
    path, config = tmp_path / "training.json", training.config_of("paper", 2)
    about = training.begun(path, config, {"train": 30})
    path.write_text(json.dumps(about))
    assert training.begun(path, config, {"train": 30}) == about
    with pytest.raises(ValueError, match="other settings or other images"):
        training.begun(path, config, {"train": 40})


def test_a_step_that_fails_or_is_too_slow_leaves_the_others_alone(tmp_path, monkeypatch, capfd):
    for name, text in {"bad": "raise SystemExit(3)", "slow": "import time; time.sleep(60)", "good": "pass"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "SLACK", 1.0)
    steps = [Step(name, name, (), 0.0, tmp_path / f"{name}.json") for name in ("bad", "slow", "good")]
    (tmp_path / "good.json").write_text('{"done": false}')
    assert process.run(steps, 60.0, tmp_path) == ["bad", "slow"]
    notes = json.loads((tmp_path / "steps.json").read_text())
    assert [note["status"] for note in notes] == [3, -signal.SIGTERM, 0]
    (tmp_path / "good.json").write_text('{"done": true}')
    assert process.run(steps[2:], 60.0, tmp_path) == []
    assert len(json.loads((tmp_path / "steps.json").read_text())) == 3


def test_the_benchmark_measures_what_is_missing(tmp_path, monkeypatch):
    path, options = tmp_path / "accelerator.json", Options()
    asked = []

    def answered(arguments, seconds):
        asked.append(arguments[-1])
        if asked == [LIMITS]:
            return {"error": "out of memory"}
        return {"head": {"device": {"kind": "one"}}, "found": {"value": len(asked)}}

    monkeypatch.setattr(accelerator, "answered", answered)
    end = time.monotonic() + 60
    accelerator.measure(options, [], path, end)
    assert asked == jobs(options)
    accelerator.measure(options, [], path, end)
    assert asked == [*jobs(options), LIMITS]
    content = json.loads(path.read_text())
    assert not any("error" in found for found in content["result"]["jobs"].values())
    assert content["device"] == {"kind": "one"}
    with pytest.raises(ValueError, match="other options"):
        accelerator.measure(Options(repeats=7), [], path, end)


def test_the_benchmark_does_not_mix_machines(tmp_path, monkeypatch):
    kinds = iter("ab")
    monkeypatch.setattr(
        accelerator, "answered", lambda *_: {"head": {"device": {"kind": next(kinds)}}, "found": {"value": 1}}
    )
    with pytest.raises(ValueError, match="another machine"):
        accelerator.measure(Options(), [], tmp_path / "accelerator.json", time.monotonic() + 60)


@pytest.fixture
def bare_tree(tmp_path):
    """A copy of what travels, in whose processes nothing else can be imported, and their environment."""
    tree = tmp_path / "tree"
    for name in ("bsojax", "experiments", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    write_images(tree / "data" / "cifar10", 480, 64, largest=120 * 3072)
    next((tree / "data" / "cifar10").glob("train-003*")).unlink()
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {
        "PYTHONPATH": str(hook),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=8", ""),
    }
    return tree, environment


def wait_for(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_rehearsal_from_a_bare_tree_is_killed_and_goes_on(bare_tree):
    tree, environment = bare_tree
    refused = subprocess.run(
        [sys.executable, "-c", "import experiments.train"], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert "is not on the bare machine" in refused.stderr

    script = [sys.executable, "-m", "experiments.gpu_plan", "--run", "--rehearse"]
    first = tree / "runs" / "gpu" / "training-T2-calibrated.json"
    # A group of its own: the process of the step must die with it, as on a machine that is taken away.
    process = subprocess.Popen(script, cwd=tree, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: first.exists() and json.loads(first.read_text())["records"], process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    cut = json.loads(first.read_text())
    assert cut["epochs"] == 3
    assert not cut["done"]

    done = subprocess.run(script, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "360 training and 64 test images (3 of 4 parts, 1 of 1 parts)" in done.stdout
    for path in (first, first.with_name("training-T4-ottt-adam.json")):
        content = json.loads(path.read_text())
        assert content["done"]
        assert [record["epoch"] for record in content["records"]] == [1, 2, 3]
        assert content["images"]["train"] == 360
    # What was known before the kill stands: the first epochs are the same, but for the time that they took.
    kept = json.loads(first.read_text())["records"][: len(cut["records"])]
    for old, new in zip(cut["records"], kept, strict=True):
        assert {**old, "seconds": 0} == {**new, "seconds": 0}
    measured = json.loads((first.parent / "accelerator.json").read_text())["result"]
    assert list(measured["jobs"]) == jobs(Options(batches=(2,), kinds=("bfloat16 activations",)))
    assert not any("error" in found for found in measured["jobs"].values())
    assert "not importable" in measured["SpikingJelly"]
    assert len(json.loads((first.parent / "device.json").read_text())["starts"]) == 2
