"""bsojax on the job. A further variant of ours is a line in VARIANTS."""

from collections.abc import Callable
from typing import Any

import jax
import optax

import bsojax
from benchmarks.peers import job
from benchmarks.peers.process import Build, main

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


VARIANTS: dict[str, Build] = {"bsojax": t_bso}

if __name__ == "__main__":
    main(VARIANTS, ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy"))
