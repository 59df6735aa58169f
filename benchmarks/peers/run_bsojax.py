"""bsojax on the job."""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax

import bsojax
from benchmarks.peers import job
from benchmarks.peers.process import Build, main
from experiments.running.compiled import keep_compiled

MODEL = bsojax.models.SpikingVGG(
    num_classes=job.CLASSES, channels=(job.CHANNELS[0], "M", job.CHANNELS[1], "M", job.CHANNELS[2])
)


def t_bso(num_steps: int, **step_options: Any) -> Callable[[], jax.Array]:
    """T-BSO in the calibrated setting, real parameters by Adam."""
    flip = bsojax.t_bso(bsojax.noise_threshold(0.99), num_steps, b1=0.99, b2=0.99, debias=True)
    tx = bsojax.split_optimizer(flip=flip, real=optax.adam(job.LEARNING_RATE))
    x, y = (jax.device_put(array) for array in job.images_and_labels())
    state = bsojax.init(MODEL, tx, jax.random.key(0), x)
    step = bsojax.make_train_step(MODEL, tx, num_steps, **step_options)

    def train() -> jax.Array:
        nonlocal state
        state, metrics = step(state, x, y)
        return metrics["loss"]

    return train


def compiled_apart(num_steps: int) -> Callable[[], jax.Array]:
    """The same, its programs compiled by a process of their own, which has ended; see save-memory.md of the how-tos."""
    folder = tempfile.TemporaryDirectory()
    command = [sys.executable, "-m", "benchmarks.peers.run_bsojax", "online", str(num_steps), "1"]
    keep = {"JAX_COMPILATION_CACHE_DIR": folder.name, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run(command, env=os.environ | keep, stdout=sys.stderr, check=True)
    keep_compiled(Path(folder.name))
    programs, step = set(Path(folder.name).glob("*-cache")), t_bso(num_steps)

    def train() -> jax.Array:
        loss = step()
        assert set(Path(folder.name).glob("*-cache")) == programs, "something was compiled here"
        return loss

    return train


def unrolled(factor: int, num_steps: int) -> Callable[[], jax.Array]:
    """The same, with several time steps in one turn of the scan: does the scan cost anything on a CPU?"""
    jax.lax.scan = functools.partial(jax.lax.scan, unroll=factor)
    return t_bso(num_steps)


VARIANTS: dict[str, Build] = {
    "online": t_bso,
    "apart": compiled_apart,
    "by 2": functools.partial(unrolled, 2),
    "by 4": functools.partial(unrolled, 4),
}

if __name__ == "__main__":
    main(VARIANTS, ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy"))
