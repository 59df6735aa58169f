"""Faults of whole processes: killed, stopped, out of disk, two at once; each is really done to a run of the command."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults import report, without_times

from experiments import train
from experiments.data import load
from experiments.running import records

ROOT = Path(__file__).resolve().parents[1]
BATCHES = 22
"""Batches an epoch; a checkpoint is written after each."""

EPOCHS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the prepared data and what XLA has compiled."""
    folder = tmp_path_factory.mktemp("faults")
    load("digits", folder / "data")
    return folder


def command(place, folder, *options):
    return [
        sys.executable, "-m", "experiments.train", "digits", "--output", str(folder), "--data-dir", str(place / "data"),
        "--network", "mlp", "--num-steps", "2", "--batch-size", "64", "--epochs", str(EPOCHS), "--no-control",
        "--checkpoint-minutes", "0", *options,
    ]  # fmt: skip


def environment(place):
    kept = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(place / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return {**kept, "JAX_PLATFORMS": "cpu", **cache}


def start(place, folder, *options):
    """Starts a run; what it says goes into FOLDER.txt."""
    with folder.with_suffix(".txt").open("ab") as output:
        return subprocess.Popen(
            command(place, folder, *options), cwd=ROOT, env=environment(place), stdout=output, stderr=output
        )


def finished(words, place):
    return subprocess.run(words, cwd=ROOT, env=environment(place), capture_output=True, text=True, check=False)


def said(folder):
    return folder.with_suffix(".txt").read_text()


def done(folder):
    return int(names(folder)[-1].partition("-")[0]) if names(folder) else 0


def names(folder):
    checkpoints = folder / "checkpoints"
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted(path.name for path in found if path.name.replace("-", "", 1).isdecimal())


def wait_until(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it came so far"
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(place):
    """The folder of a run that nothing happens to."""
    folder = place / "undisturbed"
    assert start(place, folder).wait(300) == 0, said(folder)
    return folder


def checksums(folder):
    """Those of every leaf in the last checkpoint."""
    about = json.loads((folder / "checkpoints" / names(folder)[-1] / "about" / "metadata").read_text())
    return json.loads(about["content"])["checksums"]


def assert_same_run(folder, undisturbed):
    """Signs, real parameters and statistics, every record, and momentum and all other state are the same bits."""
    assert (folder / "model.bsojax").read_bytes() == (undisturbed / "model.bsojax").read_bytes()
    found, wanted = records.read_records(folder), records.read_records(undisturbed)
    assert without_times(found) == without_times(wanted)
    assert len(found) == EPOCHS
    assert names(folder)[-1] == names(undisturbed)[-1]
    assert checksums(folder) == checksums(undisturbed)


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_as_if_nothing_had_happened(place, undisturbed):
    rng = random.Random(0)
    kills, in_saves, lost, folder, round_ = 0, 0, [], place / "killed-0", 0
    while kills < 20:
        process = start(place, folder, "--resume")
        checkpoints, at_start = folder / "checkpoints", done(folder)
        in_a_save = kills % 2 == 0
        if in_a_save:  # some saves are let pass first
            at_least = at_start + rng.randrange(1, 12)

            def moment():
                return done(folder) >= min(at_least, BATCHES * EPOCHS - 1) and any(checkpoints.glob("*-tmp*"))

        else:
            when = time.monotonic() + rng.uniform(0.5, 5.0)

            def moment():
                return time.monotonic() >= when

        while process.poll() is None and not moment():
            time.sleep(0.0005)
        if process.poll() is None:
            process.kill()
            process.wait()
            kills += 1
            in_saves += any(checkpoints.glob("*-tmp*"))
            lost.append(done(folder))
        else:
            assert process.returncode == 0, said(folder)
            assert_same_run(folder, undisturbed)
            round_ += 1
            folder = place / f"killed-{round_}"
    assert start(place, folder, "--resume").wait(300) == 0, said(folder)
    assert_same_run(folder, undisturbed)
    assert in_saves >= 5
    assert "was skipped" not in said(folder)
    report(f"kill -9 at 20 random moments, {in_saves} of them in a save", "resumed: the bits of the undisturbed run",
           kills, kills, 1)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_from_there(number, place, undisturbed):
    folder, rng, stopped = place / number.name, random.Random(number), [0]
    for delay in (rng.uniform(0, 0.01), rng.uniform(0, 0.1)):
        # Without a checkpoint every few minutes: what is saved between evaluations is saved because of the signal.
        process = start(place, folder, "--resume", "--checkpoint-minutes", "1e6")
        wait_until(lambda: len(records.read_records(folder)) > stopped[-1] // BATCHES, process)
        time.sleep(delay)
        process.send_signal(number)
        assert process.wait(60) == 128 + number, said(folder)
        assert f"The last good checkpoint is {folder / 'checkpoints' / names(folder)[-1]}" in said(folder)
        assert said(folder).count("stopped on request") == len(stopped)
        assert done(folder) > stopped[-1]
        stopped.append(done(folder))
    assert "Traceback" not in said(folder)
    assert start(place, folder, "--resume").wait(300) == 0, said(folder)
    assert_same_run(folder, undisturbed)
    batches = ", ".join(map(str, stopped[1:]))
    report(number.name, f"saves at once (after batches {batches}); resumed: the same bits", 2, 2)


@pytest.mark.slow
def test_a_second_process_is_refused_while_the_first_is_at_work_and_does_not_disturb_it(place, undisturbed):
    folder = place / "two"
    process = start(place, folder)
    wait_until(lambda: len(names(folder)) > 0, process)
    for options in ([], ["--resume"]):
        second = subprocess.run(
            command(place, folder, *options),
            cwd=ROOT,
            env=environment(place),
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert f"error: --output: process {process.pid} on" in second.stderr
        assert "is at work in" in second.stderr
    assert process.wait(300) == 0, said(folder)
    assert_same_run(folder, undisturbed)
    report("two processes on one folder", "the second is refused, the first not disturbed", 2, 2)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_with_its_checkpoints_intact(place, undisturbed, tmp_path):
    """In a file system of its own of a megabyte, which a namespace of its own mounts; the folder is copied out."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    arguments = " ".join(f"'{word}'" for word in command(place, mounted / "run", "--keep", "100"))
    after = f"{arguments}; status=$?; cp -r {mounted}/run {tmp_path}; exit $status"
    script = f"mount -t tmpfs -o size=1m tmpfs {mounted} && {after}"
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    able = subprocess.run([*unshared, f"mount -t tmpfs tmpfs {mounted}"], check=False).returncode == 0
    if not able:  # the next best: no file may grow larger than a page
        script = f"ulimit -f 8; trap '' XFSZ; {after}"
        unshared = ["sh", "-c"]
    ended = finished([*unshared, script], place)
    folder = tmp_path / "run"
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "the checkpoint could not be written" in ended.stderr or "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    saved = done(folder)
    assert start(place, folder, "--resume").wait(300) == 0, said(folder)
    assert "was skipped" not in said(folder)
    assert_same_run(folder, undisturbed)
    report(
        "disk full during a save", f"stops at batch {saved}; checkpoints intact, resumed with room: same bits", 1, 1, 1
    )


def test_a_damaged_or_missing_data_file_is_refused_and_the_run_goes_on_once_it_is_there_again(place, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    (file,) = data.rglob("*train.array_record*")
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for fault, content in (("corrupted", bytes(damaged)), ("truncated", whole[: len(whole) // 2]), ("missing", None)):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(SystemExit) as end:
            train.main(["digits", "--output", str(tmp_path / "run"), "--data-dir", str(data), "--network", "mlp"])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert "prepare" in error
        assert not (tmp_path / "run").exists()
        report(f"a file of the data set {fault}", "refused before training, with what to do", 1, 1)


@pytest.mark.slow
def test_a_resumed_run_must_be_the_same_and_each_differing_field_is_named(place, undisturbed, capsys):
    with pytest.raises(SystemExit) as end:
        train.main([*command(place, undisturbed, "--resume", "--b1", "0.5", "--seed", "3", "--keep", "9")[3:]])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "is another: --b1 was None and is 0.5; --seed was 0 and is 3." in error
    train.main([*command(place, undisturbed, "--resume")[3:]])
    assert "this run is done" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_knows_how_its_run_was_made(undisturbed, place):
    config = json.loads((undisturbed / "config.json").read_text())
    first, *_ = [json.loads(line) for line in (undisturbed / "starts.jsonl").read_text().splitlines()]
    for about in (config, first):
        assert about["command"].startswith("python -m experiments.train digits --output")
        assert about["devices"] == ["cpu:0 of process 0"]
        assert set(about["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax", "bsojax"}
        assert about["revision"] is None or len(about["revision"].rstrip("+")) == 40
    assert config["config"]["seed"] == 0
    assert config["data"]["training examples"] == 1442
    assert np.isfinite([record["seconds"] for record in records.read_records(undisturbed)]).all()
