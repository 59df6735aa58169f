"""Compiles one training step in its own process and prints what that took; benchmarks.compile_time runs it.

It uses only public names of bsojax, so that it works with any checkout of the library that PYTHONPATH names.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import bsojax


def measure(channels: list[Any], image: list[int], batch: int, num_steps: int) -> dict[str, float]:
    """Returns the seconds of each part of compiling a step, and how often that calls the model.

    "trace", "lower" and "compile" are of ``jax.jit(step)``. "calls in a trace" are those of the model's ``__call__``
    meanwhile, "calls in a first call" those of a step that is called as it is.
    """
    norm = functools.partial(bsojax.BatchNorm, num_steps=num_steps)
    model = bsojax.models.SpikingVGG(channels=tuple(channels), norm=norm)
    flip = bsojax.t_bso(bsojax.noise_threshold(0.99), num_steps, b1=0.99, b2=0.99, debias=True)
    tx = bsojax.split_optimizer(flip=optax.chain(bsojax.scale_by_channel_rms(), flip), real=optax.sgd(0.1))
    x, y = np.zeros((batch, *image), np.float32), np.zeros(batch, np.int32)
    state = bsojax.init(model, tx, jax.random.key(0), x)
    jax.config.update("jax_enable_compilation_cache", False)

    jax.clear_caches()
    marks = [time.perf_counter()]
    traced = jax.jit(bsojax.make_train_step(model, tx, num_steps), donate_argnums=0).trace(state, x, y)
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    lowered.compile()
    marks.append(time.perf_counter())
    seconds = dict(zip(("trace", "lower", "compile"), np.diff(marks).tolist(), strict=True))

    # Only its calls are counted: it need not compile well.
    jax.config.update("jax_disable_most_optimizations", True)
    step = bsojax.make_train_step(model, tx, num_steps)
    return seconds | {
        "calls in a trace": calls(model, lambda: jax.jit(step).trace(state, x, y)),
        "calls in a first call": calls(model, lambda: step(state, x, y)),
    }


def calls(model: nn.Module, work: Callable[[], Any]) -> int:
    """Returns how often some work calls a model, with nothing left from before."""
    count = 0

    def intercept(call: Callable[..., Any], arguments: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal count
        count += isinstance(context.module, type(model)) and context.method_name == "__call__"
        return call(*arguments, **options)

    jax.clear_caches()
    with nn.intercept_methods(intercept):
        jax.block_until_ready(work())
    return count


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
