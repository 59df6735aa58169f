"""How often a network of whole numbers decides otherwise than the model that it was made of."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np

from bsojax.online import TrainState, predict, record

BATCH = 64
"""Examples that JAX runs at once, and holds every membrane of."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What a network of whole numbers and its model make of the same inputs.

    Spikes may differ where a membrane lies within rounding of its threshold, and with them those of layers behind. The
    sum of two is of all their inputs.

    Attributes:
      examples: how many were compared.
      predictions_differ: of how many of them another logit is the largest.
      spikes: those of all neurons at all time steps, fired or not.
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
            f"of {self.examples:,} examples {self.predictions_differ:,} predictions differ from JAX, and "
            f"{self.spikes_differ:,} of {self.spikes:,} spikes"
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
    """Compares what a network of whole numbers gave with what its model does.

    Args:
      model: the model.
      state: its state.
      x: inputs as the model takes them, float32.
      num_steps: the number of time steps.
      logits: of shape ``(batch, classes)``.
      spikes: by the name of their layer, of shape ``(num_steps, batch, ...)``.
      batch_axis: where in x the examples are.
    """
    count, predictions, differ = len(logits), 0, 0
    for first in range(0, count, BATCH):
        places = np.arange(first, first + BATCH)
        part = np.take(x, np.minimum(places, count - 1), batch_axis)  # of one shape: compiled once
        places = places[: count - first]
        answers, recorded = jax.device_get(
            (predict(model, state, part, num_steps), record(model, state, part, num_steps))
        )
        answers = answers.reshape(BATCH, -1)[: len(places)]
        predictions += int(np.sum(answers.argmax(1) != logits[places].argmax(1)))
        for name, found in spikes.items():
            differ += int(np.sum((recorded[name].spikes[:, : len(places)] > 0) != found[:, places]))
    return Agreement(count, predictions, sum(found.size for found in spikes.values()), differ)
