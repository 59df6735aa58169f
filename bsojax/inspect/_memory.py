"""Where the memory of training goes: bytes by tree, and bytes of a compiled step."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _validate
from bsojax.online import TrainState, as_inputs, as_targets, start
from bsojax.signs import count_signs, pack_signs

MOMENTA = ("momentum", "levels")
"""The fields in which states of flip optimizers hold what they accumulate from the gradients."""


def memory_report(
    state: TrainState,
    *,
    model: nn.Module | None = None,
    step: Any = None,
    x: Any = None,
    y: Any = None,
) -> dict[str, int]:
    """Returns the memory of training in bytes, by tree.

    Use it to see what a model costs before training it; nothing is run.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> report = bsojax.memory_report(state, model=model, x=x)
      >>> report["signs"], report["signs_packed"], report["momentum"], report["latent_adam"]
      (64, 8, 256, 768)

    Args:
      state: the training state, or its shapes.
      model: with x, adds the state of the neurons.
      step: with x and y, adds the bytes of the compiled step; it is compiled, not run.
      x: a batch of one time step, an array or a ``jax.ShapeDtypeStruct``.
      y: its labels, likewise.

    Returns:
      A dict of bytes: "signs" (one byte each, as jax stores booleans, or one bit where the state is packed),
      "signs_packed" (one bit each), "params", "batch_stats", "momentum" (the flip optimizer's, or its counters),
      "optimizer_other" (the rest of the optimizer's state), "latent_adam" (for comparison: what the binary weights
      would take as float32 latent weights with Adam's two moments); on request, "neurons", and "step_arguments" and
      "step_temporaries" of the compiled step.

    Raises:
      ValueError: model without x, or step without x and y.
    """
    _validate.batch_given(model=model, step=step, x=x, y=y)
    optimizer = jax.tree_util.tree_leaves_with_path(state.opt_state)
    momentum = [leaf for path, leaf in optimizer if any(getattr(key, "name", "") in MOMENTA for key in path)]
    report = {
        "signs": _bytes(state.signs),
        "signs_packed": _bytes(jax.eval_shape(pack_signs, state.signs)),
        "params": _bytes(state.params),
        "batch_stats": _bytes(state.batch_stats),
        "momentum": _bytes(momentum),
        "optimizer_other": _bytes(state.opt_state) - _bytes(momentum),
        "latent_adam": 12 * count_signs(state.signs),
    }
    x, y = None if x is None else as_inputs(x, state.input_shape), as_targets(y)
    if model is not None:
        report["neurons"] = _bytes(jax.eval_shape(lambda x: start(model, x, 1, train=True).neurons, x))
    if step is not None:
        analysis = step.lower(state, x, y).compile().memory_analysis()
        report["step_arguments"] = analysis.argument_size_in_bytes
        report["step_temporaries"] = analysis.temp_size_in_bytes
    return report


def _bytes(tree: Any) -> int:
    return sum(math.prod(np.shape(leaf)) * jnp.result_type(leaf).itemsize for leaf in jax.tree.leaves(tree))
