"""What a loss is, and what of a time step it asks to see."""

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

Loss: TypeAlias = Callable[..., Any]
"""A function of what the model returns at a time step and of the targets: ``loss(logits, y)``.

It returns a floating scalar, the mean over the batch, or an array whose first axis is the batch's, of which the mean
over each example is its value. Further arguments are given to it where it has them by name: "time_step" (int32),
"total" (the sum over time of what the model has returned, this step included), "spike_rates" (the mean spike by neuron
layer, with gradient) and "sown" (what the model sowed into the collection "losses").
"""

OFFERED = ("time_step", "total", "spike_rates", "sown")
"""What a loss may take by name."""


def takes(loss: Loss) -> frozenset[str]:
    """Returns which of the further arguments a loss takes: those it names, or its attribute ``takes``."""
    declared = getattr(loss, "takes", None)
    if declared is not None:
        return frozenset(declared)
    return frozenset(OFFERED) & inspect.signature(loss).parameters.keys()


def per_example(loss: Loss) -> Loss:
    """Returns the form of a loss that gives a value for each example: its method of this name, or the loss itself.

    A loss whose mean is computed in another way than by averaging those values has such a method.
    """
    return getattr(loss, "per_example", loss)
