"""How long an example takes, in JAX and in C, on one core: ``python -m experiments.deploying.times FOLDER``.

It is a separate process, because the threads of JAX start with the process.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bsojax
from bsojax.deploy import IntegerNetwork
from experiments.deploying.comparison import FLAGS
from experiments.deploying.native import compiled

ROUNDS, SECONDS = 301, 3.0
"""Limits of calls and seconds for each; they take turns, so that other work on the machine affects both alike."""


def measured(model: Any, state: bsojax.TrainState, network: IntegerNetwork, x: np.ndarray) -> dict[str, float]:
    """Returns the median time of one example in seconds, by "JAX" and, if there is a compiler, "C".

    Args:
      model: the model, one of bsojax.models.
      state: its state.
      network: its integer network.
      x: an example, as integers, with a batch axis.

    Raises:
      RuntimeError: the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        bsojax.save_model(Path(folder) / "model", model, state)
        network.save(Path(folder) / "network")
        np.save(Path(folder) / "x.npy", x)
        command = [sys.executable, "-m", "experiments.deploying.times", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"timing failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def main(folder: Path) -> None:
    """Times the model and the network in a folder, and prints the medians as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    network, x = bsojax.deploy.load(folder / "network"), np.load(folder / "x.npy")
    calls = {"JAX": _of_jax(folder / "model", network, x)}
    if shutil.which("cc") is not None:
        calls["C"] = compiled(network, x, FLAGS)
    print(json.dumps({name: statistics.median(seconds) for name, seconds in _interleaved(calls).items()}))


def _interleaved(calls: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    while len(seconds["JAX"]) < ROUNDS and (time.perf_counter() - begun < SECONDS or len(seconds["JAX"]) < 5):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _of_jax(path: Path, network: IntegerNetwork, x: np.ndarray) -> Callable[[], Any]:
    """The compiled evaluation of one example, whose weights are constants of the program."""
    import jax

    saved = bsojax.load_model(path)
    model, state = saved.model, saved.state
    assert model is not None
    run = jax.jit(lambda x: bsojax.predict(model, state, x, network.num_steps))
    frame = jax.device_put(x.astype(np.float32) / np.float32(network.input_scale))
    run(frame).block_until_ready()
    return lambda: run(frame).block_until_ready()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
