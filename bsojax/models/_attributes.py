"""Checks of the attributes that the networks of this package share."""

from collections.abc import Sequence
from typing import Any

from bsojax._kinds import check_callable, check_positive_int


def check_attributes(model: Any, layers: str, *others: str) -> None:
    """Raises unless the attributes of a network are of the right kind.

    Args:
      model: the network; it has the attributes num_classes, neuron, norm and scale.
      layers: the attribute that lists its layers, a sequence.
      others: further attributes that are functions.
    """
    value: Any = getattr(model, layers)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{layers}: needs a sequence, one entry a layer, not {value!r}.")
    check_positive_int("num_classes", model.num_classes)
    for name in ("neuron", "norm", "scale", *others):
        check_callable(name, getattr(model, name))
