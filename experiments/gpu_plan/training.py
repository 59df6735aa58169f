"""Trains VGG-11 on CIFAR-10 for as many epochs as fit: ``python -m experiments.gpu_plan.training --rule calibrated …``.

How many fit is found out once, from the time of some batches or of another rule's, and stands in the file: schedules
end with the last epoch, so a start that goes on must not choose again.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.build import Run, prepare
from experiments.config import Config, Session, as_json
from experiments.configs import CONFIGS
from experiments.data import DataSet
from experiments.environment import environment
from experiments.evaluation import evaluate, refreshed
from experiments.gpu_plan.images import read_images
from experiments.gpu_plan.plan import RULES
from experiments.loop import train
from experiments.running.checkpoints import Checkpoints
from experiments.running.compiled import keep_compiled
from experiments.running.files import write_json
from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop, Stopped

SETTINGS: dict[str, dict[str, Any]] = {
    "calibrated": {"optimizer": "t-bso", "preset": "calibrated", "threshold": None},
    "paper": {"optimizer": "t-bso", "preset": "paper"},
    "ottt-adam": {"optimizer": "ottt", "preset": "calibrated", "threshold": None},
}

SMALL: dict[str, Any] = {"channels": (8, "M", 8, "M", 8), "batch_size": 16}
"""The network of a rehearsal."""

TRIED = 20
"""Batches whose time is taken, at most, after as many that compile and warm up."""

SPARE = 1.1
"""By how much an epoch may turn out longer than it was found to be."""

MOST_REHEARSED = 3
"""Epochs of a rehearsal, however fast they are."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m experiments.gpu_plan.training", description=__doc__)
    made.add_argument("--rule", choices=RULES, required=True, help="what trains the signs")
    made.add_argument("--num-steps", type=int, required=True, help="T")
    made.add_argument("--seconds", type=float, required=True, help="for all of it, compilation among them")
    made.add_argument("--data", type=Path, required=True, help="the folder with the parts of CIFAR-10")
    made.add_argument("--output", type=Path, required=True, help="the JSON file; checkpoints lie in a folder beside it")
    made.add_argument("--rehearse", action="store_true", help="a small network and few epochs")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exit status 143 where it was asked to stop, and has saved its work."""
    started, given = time.monotonic(), parser().parse_args(arguments)
    keep_compiled(given.output.parent / "cache")  # a start that goes on need not compile again
    stop = Stop()
    with stop.listening():
        data, images = read_images(given.data)
        parts = f"{images['train parts']} parts, {images['test parts']} parts"
        print(f"{images['train']:,} training and {images['test']:,} test images ({parts})", flush=True)
        config = config_of(given.rule, given.num_steps, rehearse=given.rehearse)
        about = begun(given.output, config, images)
        if "epochs" not in about:
            about["cost"] = known(given.output.parent, given.num_steps, images) or measured(config, data)
            left = given.seconds - (time.monotonic() - started)
            about["epochs"] = min(fitting(about["cost"], left), MOST_REHEARSED if given.rehearse else sys.maxsize)
            write_json(given.output, about)
        try:
            trained(dataclasses.replace(config, epochs=about["epochs"]), data, given.output, about, stop)
        except Stopped:
            sys.exit(stop.status)


def config_of(rule: str, num_steps: int, *, rehearse: bool = False) -> Config:
    """Returns the settings of a training: the config cifar10-vgg11 with a rule, on one device."""
    base = CONFIGS["cifar10-vgg11"][1]
    small = SMALL if rehearse else {}
    return dataclasses.replace(base, num_steps=num_steps, session=Session(devices=1, keep=1), **SETTINGS[rule], **small)


def begun(path: Path, config: Config, images: dict[str, Any]) -> dict[str, Any]:
    """Returns what a file says of a training; where there is none yet, what is known before it.

    Raises:
      ValueError: it is another training, or one on other images.
    """
    settings = {name: value for name, value in as_json(config).items() if name not in ("epochs", "session")}
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        return {**environment(), "config": settings, "images": images, "records": [], "done": False}
    about = json.loads(path.read_text())
    if (about["config"], about["images"]) != (settings, images):
        raise ValueError(f"--output: {path} is of other settings or other images; choose another file.")
    return about


def known(folder: Path, num_steps: int, images: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what a training costs by what another one was found to cost: its rule matters little, T much.

    To measure it takes a compilation, which on a GPU may take longer than some epochs.

    Args:
      folder: where the files of the trainings lie.
      num_steps: T; one at the same T comes first, and the epochs of another one are taken to be as many times as long.
      images: what it is trained on.
    """
    others = [json.loads(path.read_text()) for path in sorted(folder.glob("training-*.json"))]
    found = [one for one in others if "measured" in one.get("cost", {}) and one["images"] == images]
    if not found:
        return None
    nearest = min(found, key=lambda one: abs(one["config"]["num_steps"] - num_steps))
    factor = num_steps / nearest["config"]["num_steps"]
    return {"start": nearest["cost"]["start"], "epoch": factor * nearest["cost"]["epoch"]}


def measured(config: Config, data: DataSet) -> dict[str, Any]:
    """Returns what a training costs, in seconds: "start", until the first batch is done, and "epoch", with its test."""
    clock, start = time.perf_counter, time.perf_counter()
    run = prepare(dataclasses.replace(config, epochs=1), data)
    count = max(min(TRIED, run.batches // 2), 1)
    advance = run.epochs.start(jax.random.key(0))
    state, fetch = advance(run.state, 0, count)
    fetch()
    ready = clock()
    state, fetch = advance(state, count, 2 * count)
    fetch()
    batch = (clock() - ready) / count
    judged(run, state)  # compiles
    again = clock()
    judged(run, state)
    end = clock()
    startup = (ready - start) + (again - ready - count * batch)
    return {"measured": True, "start": startup, "batch": batch, "epoch": run.batches * batch + end - again}


def judged(run: Run, state: Any) -> None:
    """Tests a state, as a training does after each epoch."""
    evaluate(run, refreshed(run, state), run.data.test)


def fitting(cost: dict[str, Any], seconds: float) -> int:
    """Returns how many epochs fit into so many seconds after compiling once more; at least one."""
    return max(int((seconds - cost["start"]) / (SPARE * cost["epoch"])), 1)


def trained(config: Config, data: DataSet, path: Path, about: dict[str, Any], stop: Stop) -> None:
    """Trains to the end from the last checkpoint on; the file is replaced after each epoch.

    Raises:
      Stopped: it was asked to stop; what was done is saved.
    """
    run = prepare(config, data)
    checkpoints = Checkpoints(path.with_suffix("") / "checkpoints", config, run.batches)
    start, skipped = checkpoints.restore(run.state)
    for name, reason in skipped.items():
        print(f"checkpoint {name} was skipped: {reason}", flush=True)
    records = list(start.records) if start else []

    def on_record(record: dict[str, Any]) -> None:
        records.append(record)
        stats = jax.devices()[0].memory_stats() or {}
        write_json(path, about | {"records": records, "peak bytes in use": stats.get("peak_bytes_in_use")})
        print(f"epoch {record['epoch']:g} of {config.epochs}: test {record['eval_accuracy']:.4f}", flush=True)

    train(run, lambda _: None, on_record, start, CheckpointKeeper(checkpoints, config.session.checkpoint_minutes, stop))
    write_json(path, json.loads(path.read_text()) | {"records": records, "done": True})


if __name__ == "__main__":
    main()
