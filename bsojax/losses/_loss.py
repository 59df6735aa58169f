"""The form of a loss, and what it can request about a time step."""

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

Loss: TypeAlias = Callable[..., Any]
"""A function of the model's outputs at a time step and of the targets: ``loss(logits, y)``.

It returns a floating scalar, the mean over the batch, or an array whose first axis is the batch axis; an example's
value is then the mean of its entries. It receives further arguments where it names them: "time_step" (int32), "total"
(the sum of the model's outputs over time, this step included), "spike_rates" (the mean spike by neuron layer, with
gradient) and "sown" (what the model sowed into the collection "losses").
"""

OFFERED = ("time_step", "total", "spike_rates", "sown")
"""The arguments that a loss may take by name."""


def takes(loss: Loss) -> frozenset[str]:
    """Returns which of the further arguments a loss takes: those it names, or its attribute ``takes``."""
    declared = getattr(loss, "takes", None)
    if declared is not None:
        return frozenset(declared)
    return frozenset(OFFERED) & inspect.signature(loss).parameters.keys()


def per_example(loss: Loss) -> Loss:
    """Returns the form of a loss that gives a value per example: its method of this name, or the loss itself.

    A loss whose mean is not the average of those values has such a method.
    """
    return getattr(loss, "per_example", loss)
