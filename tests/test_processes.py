"""Several processes on one run, on 127.0.0.1: what they train is what one process trains on as many devices."""

import dataclasses
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from faults import SMALL, changed, report
from process_run import direct_step, ten_steps

from experiments import train
from experiments.build import prepare
from experiments.config import Session
from experiments.configs import CONFIGS
from experiments.data import load
from experiments.running.checkpoints import Checkpoints
from experiments.running.stored import stored_leaves

ROOT = Path(__file__).resolve().parents[1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    load("digits", folder / "data")
    return folder


def start_two(*words):
    """Starts two processes with two devices each; {port} and {number} in their words are replaced."""
    port, environment = free_port(), {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment["XLA_FLAGS"] = " ".join([*flags, "--xla_force_host_platform_device_count=2"])
    return [
        subprocess.Popen(
            [sys.executable, *(word.format(port=port, number=number) for word in words)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def of_two_processes(place):
    """What each of two processes, with two devices each, says of a run of ten steps, and of one that reads a stream."""
    processes = start_two("tests/process_run.py", "{port}", "{number}", str(place))
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return {
        name: [pickle.loads((place / f"{name}-{number}.pickle").read_bytes()) for number in range(2)]
        for name in ("memory", "stream", "direct")
    }


def assert_same_but_for_rounding(found, wanted):
    """Signs and counts are equal; all else to a share of its size that the order of float32 sums explains."""
    assert found["leaves"].keys() == wanted["leaves"].keys()
    for name, leaf in wanted["leaves"].items():
        other = found["leaves"][name]
        if np.issubdtype(leaf.dtype, np.floating):
            size = np.sqrt(np.mean(np.square(leaf)))
            assert np.max(np.abs(other - leaf), initial=0) <= 1e-5 * max(size, 1e-3), name
        else:
            np.testing.assert_array_equal(other, leaf, err_msg=name)
    for record, other in zip(wanted["records"], found["records"], strict=True):
        assert (record["flips"], record["eval_accuracy"]) == (other["flips"], other["eval_accuracy"])
        assert record.keys() == other.keys()
        np.testing.assert_allclose(jax.tree.leaves(record), jax.tree.leaves(other), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_two_processes_hold_the_same_bits_after_ten_steps(kind, of_two_processes):
    first, second = of_two_processes[kind]
    assert first["devices"] == second["devices"] == 4
    assert first["records"] == second["records"]
    assert first["leaves"].keys() == second["leaves"].keys()
    for name, leaf in first["leaves"].items():
        assert leaf.tobytes() == second["leaves"][name].tobytes(), name


@pytest.mark.slow
def test_a_step_may_be_called_directly_on_arrays_that_span_processes(of_two_processes):
    first, second = of_two_processes["direct"]
    assert first == second
    np.testing.assert_allclose(list(jax.tree.leaves(first)), list(jax.tree.leaves(direct_step())), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_two_processes_train_what_one_process_trains_on_any_number_of_devices(
    devices, of_two_processes, place, tmp_path
):
    alone = ten_steps(place / "data", tmp_path, Session(devices=devices, split_optimizer=True))
    assert alone["devices"] == devices
    assert alone["records"][0]["flips"] > 0
    assert_same_but_for_rounding(of_two_processes["memory"][0], alone)


@pytest.mark.slow
def test_two_processes_read_half_of_a_stream_each_and_train_what_one_trains_on_all_of_it(
    of_two_processes, place, tmp_path
):
    alone = ten_steps(place / "data", tmp_path, Session(devices=1), stream=True)
    assert [process["reads"] for process in of_two_processes["stream"]] == [alone["reads"] // 2] * 2
    assert_same_but_for_rounding(of_two_processes["stream"][0], alone)


@pytest.mark.slow
def test_their_checkpoint_goes_on_in_one_process(of_two_processes, place):
    wide = changed(SMALL, channels=(64, 64, 64), epochs=1, evaluations=1)
    run = prepare(wide, load("digits", place / "data"))
    start, skipped = Checkpoints(place / "checkpoints-memory", wide, run.batches).restore(run.state)
    assert not skipped
    for name, leaf in stored_leaves(start.state).items():
        assert np.asarray(leaf).tobytes() == of_two_processes["memory"][0]["leaves"][name].tobytes(), name
    assert start.records[0]["eval_accuracy"] == of_two_processes["memory"][0]["records"][0]["eval_accuracy"]
    report("a checkpoint of 2 processes, restored in 1", "the same bits", 1, 1)


@pytest.mark.slow
def test_where_a_process_dies_the_others_end_and_its_last_checkpoint_is_good(place, tmp_path):
    config = dataclasses.replace(
        CONFIGS["digits"][1], network="mlp", num_steps=1, batch_size=240, epochs=5000, control=False
    )
    folder, script = tmp_path / "run", (
        "import sys; from experiments import train; from experiments.running import devices\n"
        "devices.HEARTBEAT_SECONDS = 10; train.main(sys.argv[1:])"
    )  # fmt: skip
    processes = start_two(
        "-c", script, "digits", "--network", "mlp", "--num-steps", "1", "--batch-size", "240", "--epochs", "5000",
        "--no-control", "--output", str(folder), "--data-dir", str(place / "data"),
        "--coordinator", "127.0.0.1:{port}", "--num-processes", "2", "--process-id", "{number}",
    )  # fmt: skip
    records = folder / "metrics.jsonl"

    def epochs():
        return len(records.read_text().splitlines()) if records.exists() else 0

    try:
        deadline = time.monotonic() + 120
        while epochs() < 3:
            assert time.monotonic() < deadline, "no three epochs in two minutes"
            assert [process.poll() for process in processes] == [None, None]
            time.sleep(0.1)
        processes[1].kill()
        said = processes[0].communicate(timeout=120)[0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode not in (0, -signal.SIGKILL)
    assert "another task died" in said
    run = prepare(config, load("digits", place / "data"))
    start, skipped = Checkpoints(folder / "checkpoints", config, run.batches).restore(run.state)
    assert not skipped
    lost = max(epochs() - len(start.records), 0)
    assert lost <= 1  # the checkpoint of the last evaluation may not have been whole
    batches = (lost + 1) * run.batches
    report("kill -9 of one of 2 processes", "the other ends, the last checkpoint is good", 1, 1, batches)


bad = {
    "no process id": (["--coordinator", "127.0.0.1:1", "--num-processes", "2"], "--coordinator: needs --num-processes"),
    "no port": (["--coordinator", "here", "--num-processes", "2", "--process-id", "0"], "--coordinator: must be host:"),
    "process id": (
        ["--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "2"], "--process-id: must be in 0 .. 1"
    ),
    "no coordinator": (["--num-processes", "2"], "--num-processes: needs --coordinator"),
    "too many devices": (["--devices", "9"], "--devices: there are 8, not 9"),
    "uneven": (["--devices", "3"], "--batch-size: 32 examples cannot be split evenly over 3 devices"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), bad.values(), ids=bad.keys())
def test_bad_settings_of_devices_and_processes_are_refused_before_anything(options, message, place, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(["digits", "--output", str(tmp_path / "run"), "--data-dir", str(place / "data"), *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_whose_coordinator_never_comes_gives_up_with_a_message():
    script = (
        "from experiments.running import devices; from experiments.config import Session; devices.CONNECT_SECONDS = 2\n"
        f"devices.start_processes(Session(coordinator='127.0.0.1:{free_port()}', num_processes=2, process_id=1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "could not join the others" in done.stderr or "DEADLINE_EXCEEDED" in done.stderr
