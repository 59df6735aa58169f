"""How often an integer network decides differently from the model that it was made from."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from bsojax.online import TrainState, predict, record

BATCH = 64
"""The number of examples that JAX runs at once, holding every membrane."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """A comparison of an integer network with its model on the same inputs.

    Spikes may differ where a membrane lies within rounding of its threshold, and so may the spikes of later layers. The
    sum of two agreements covers all of their inputs.

    Attributes:
      examples: how many examples were compared.
      predictions_differ: for how many of them the largest logit is a different one.
      spikes: the number of possible spikes, of all neurons at all time steps, fired or not.
      spikes_differ: how many of these differ.
    """

    examples: int
    predictions_differ: int
    spikes: int
    spikes_differ: int

    def __add__(self, other: "Agreement") -> "Agreement":
        numbers = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Agreement(*(one + more for one, more in numbers))

    def __str__(self) -> str:
        return (
            f"{self.predictions_differ:,} of {self.examples:,} predictions and {self.spikes_differ:,} of "
            f"{self.spikes:,} spikes differ from JAX"
        )


def compared(
    model: nn.Module,
    state: TrainState,
    x: np.ndarray,
    num_steps: int,
    logits: np.ndarray,
    spikes: Mapping[str, np.ndarray],
    batch_axis: int,
) -> Agreement:
    """Compares the results of an integer network with those of its model.

    Args:
      model: the model.
      state: its state.
      x: inputs as the model takes them, float32.
      num_steps: the number of time steps.
      logits: of shape ``(batch, classes)``.
      spikes: by the name of their layer, of shape ``(T, batch, ...)``.
      batch_axis: the axis of x that holds the examples.
    """
    count, predictions, differ = len(logits), 0, 0
    mask = np.ones((len(x), BATCH), np.bool_) if batch_axis and len(x) < num_steps else None  # shorter sequences
    for first in range(0, count, BATCH):
        places = np.arange(first, first + BATCH)
        part = np.take(x, np.minimum(places, count - 1), batch_axis)  # always one shape: compiled once
        places = places[: count - first]
        answers, recorded = jax.device_get(
            (predict(model, state, part, num_steps, mask=mask), record(model, state, part, num_steps, mask=mask))
        )
        answers = answers.reshape(BATCH, -1)[: len(places)]
        predictions += int(np.sum(answers.argmax(1) != logits[places].argmax(1)))
        for name, found in spikes.items():
            differ += int(np.sum((recorded[name].spikes[:, : len(places)] > 0) != found[:, places]))
    return Agreement(count, predictions, sum(found.size for found in spikes.values()), differ)
