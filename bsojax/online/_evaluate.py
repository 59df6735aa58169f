"""Evaluation: a scan over the time steps that changes nothing and keeps no traces."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.online._losses import PAPER_LOSS, Loss, accuracy, within_classes
from bsojax.online._model import forward, start
from bsojax.online._state import TrainState, check_state
from bsojax.online._step import Seen, Step
from bsojax.optim import all_finite


def make_eval_step(model: nn.Module, num_steps: int, *, loss: Loss = PAPER_LOSS) -> Step:
    """Returns ``evaluate(state, x, y) -> {"loss", "accuracy"}`` of one batch; nothing changes.

    Use it with running statistics that are up to date (see refresh_statistics). x and y are as in the training step;
    no traces are kept. The accuracy is that of the logits' sum over time. The loss is NaN where x is not finite or a
    label is outside the classes.

    Args:
      model: a Linen module (see init).
      num_steps: the number of time steps, >= 1; it may differ from training if the norms' statistics are shared.
      loss: a function of logits and labels.

    Raises:
      TypeError, ValueError: as make_train_step.
    """
    num_steps, seen = _validate.steps(num_steps), Seen()

    def eval_step(state: TrainState, x: jax.Array, y: jax.Array) -> dict[str, Any]:
        sequence = _validate.batch(x, y, state.input_shape, num_steps)
        y = y.astype(jnp.int32)
        begun = start(model, x[0] if sequence else x, num_steps, train=False)
        _validate.logits(begun.logits, y)
        check_state(state, begun.variables)
        seen.num_classes = begun.logits.shape[-1]

        def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
            t, neurons, total, value = carry
            out = forward(model, state.variables, neurons, x[t] if sequence else x, t, train=False)
            value = value + within_classes(loss(out.logits, y), out.logits, y) / num_steps
            return (t + 1, out.neurons, total + out.logits, value), None

        logits = jnp.zeros(begun.logits.shape, begun.logits.dtype)
        first = (jnp.zeros((), jnp.int32), begun.neurons, logits, jnp.zeros(()))
        (_, _, total, value), _ = jax.lax.scan(body, first, None, length=num_steps)
        value = jnp.where(all_finite(x), value, jnp.nan)  # spikes hide what is not finite
        return {"loss": value, "accuracy": accuracy(total, y)}

    return Step(eval_step, seen, num_steps)
