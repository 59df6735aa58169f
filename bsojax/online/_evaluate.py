"""Evaluation: a scan over the time steps that changes no state and keeps no traces."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.losses import Loss, Metric, cross_entropy_mse, takes
from bsojax.nn import SPIKE_RATES
from bsojax.online._batch import batch_of
from bsojax.online._judge import Judge, Seen, weights_of
from bsojax.online._model import LOSSES
from bsojax.online._state import TrainState
from bsojax.online._step import Step
from bsojax.online._walk import walk
from bsojax.optim import all_finite

DEFAULT_LOSS = cross_entropy_mse()
"""The default loss of training and evaluation: the paper's."""


def make_eval_step(
    model: nn.Module, num_steps: int, *, loss: Loss = DEFAULT_LOSS, metrics: Mapping[str, Metric] | None = None
) -> Step:
    """Returns ``evaluate(state, x, y) -> {"loss", "accuracy"}`` for one batch; it changes no state.

    Use it with running statistics that are up to date (see refresh_statistics). x, y, mask, rngs and neurons are as in
    the training step; no traces are kept. Metrics use the mean of the model's outputs over time. The loss is NaN where
    x is not finite or a label is outside the classes.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> evaluate = bsojax.make_eval_step(model, num_steps=4)
      >>> sorted(evaluate(state, x, jnp.array([0, 1])))
      ['accuracy', 'loss']

    Args:
      model: a Linen module (see init).
      num_steps: the number of time steps, >= 1; it may differ from training if the norms' statistics are shared.
      loss: as in make_train_step.
      metrics: as in make_train_step.

    Raises:
      TypeError, ValueError: as make_train_step.
    """
    _validate.linen(model)
    num_steps, seen = _validate.steps(num_steps), Seen()
    _validate.metric_names(metrics or ())
    extra = tuple(name for name, asked in ((SPIKE_RATES, "spike_rates"), (LOSSES, "sown")) if asked in takes(loss))

    def eval_step(
        state: TrainState, x: Any, y: Any, *, mask: Any = None, rngs: Any = None, neurons: Any = None
    ) -> dict[str, Any]:
        batch = batch_of(x, y, mask, state.input_shape, num_steps)
        way, begun = walk(model, state, batch, rngs=rngs, neurons=neurons, extra=extra)
        judge = Judge(loss, metrics, batch, weights_of(loss, batch))
        judge.check(begun, seen)

        def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
            t, neurons, tally = carry
            out = way.at(t, neurons)
            share = judge.loss_at(out, batch.target(t), tally.total, t)
            return (t + 1, out.neurons, judge.add(tally, out, share, t)), None

        first = (jnp.zeros((), jnp.int32), begun.neurons, judge.start(begun.logits))
        (_, neurons_after, tally), _ = jax.lax.scan(body, first, None, length=batch.num_steps)
        results = judge.results(tally)
        results["loss"] = jnp.where(all_finite(batch.counted_x()), results["loss"], jnp.nan)  # spikes hide it
        return results if neurons is None else {**results, "neurons": neurons_after}

    return Step(eval_step, seen, num_steps, loss)
