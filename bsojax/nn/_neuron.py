"""What neurons report of a time step: mean spike, recordings, and membranes for the model around them."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from bsojax import _validate
from bsojax.nn._counted import mean_spike
from bsojax.nn._spikes import Spikes

SPIKE_RATES = "spike_rates"
"""The collection into which neurons sow their mean spike."""

RECORDINGS = "recordings"
"""The collection into which neurons sow "spikes", "membranes", "currents" and "traces" of a time step."""


class _Membranes(NamedTuple):
    """The membranes of the last time step."""

    before_reset: jax.Array
    after_reset: jax.Array


class Neuron(nn.Module):
    """The base class of the neurons of this library; derive your own from it to get ``membrane_potential``.

    A neuron is a module that takes a current and returns Spikes, keeps its state in the collection "neurons", and
    calls :func:`report` once it knows its spikes.
    """

    _constants: ClassVar[tuple[str, ...]] = ()  # attributes that may be arrays
    _membranes: ClassVar[Any] = None  # _Membranes of this call of the model; a copy of the module has none

    def __post_init__(self) -> None:
        for name in self._constants:
            value = getattr(self, name)
            if isinstance(value, list | np.ndarray | jax.Array):
                # Flax compares and hashes modules by their attributes, which arrays do not allow.
                setattr(self, name, _as_tuple(np.asarray(value).tolist()))
        super().__post_init__()

    def membrane_potential(self, *, before_reset: bool = False) -> jax.Array:
        """Returns the membrane of the neuron's last call, in training and in evaluation.

        Use it in a model after calling the neuron: ``spikes = neuron(current); v = neuron.membrane_potential()``.

        Args:
          before_reset: True for the membrane that was compared with the threshold, so that crossings are visible; False
            for the one after the reset.

        Returns:
          An array of the current's shape and dtype, without a gradient.

        Raises:
          ValueError: the neuron has not been called in this call of the model.
        """
        _validate.was_called(f"neuron '{self.name}'", self._membranes is not None)
        membranes = self._membranes
        membrane: jax.Array = membranes.before_reset if before_reset else membranes.after_reset
        return membrane


def report(
    neuron: nn.Module,
    spikes: Spikes | None = None,
    *,
    current: jax.Array | None = None,
    before_reset: jax.Array | None = None,
    after_reset: jax.Array | None = None,
) -> None:
    """Reports the spikes and membranes of a neuron's time step to whatever uses them.

    Use it in a neuron of your own, once per call: the neuron's spike rate then appears in the metrics of a training
    step and can be part of a loss, ``bsojax.record`` records the neuron, and ``membrane_potential`` works if it derives
    from Neuron. What nothing uses costs nothing; arguments that are left out are not reported.

    The mean spike of the examples that count is sown into the collection "spike_rates", with its gradient; spikes,
    membranes before the reset, currents and traces are sown into "recordings" where that is mutable.

    Args:
      neuron: the module that is called.
      spikes: what it returns; None if it does not spike.
      current: its input.
      before_reset: the membrane that was compared with the threshold.
      after_reset: the membrane after the reset.
    """
    if spikes is not None:
        _sow(neuron, SPIKE_RATES, "rate", mean_spike(spikes.value))
    if not neuron.is_initializing():  # recordings are not among the variables that a model keeps
        _sow(neuron, RECORDINGS, "spikes", None if spikes is None else spikes.value)
        _sow(neuron, RECORDINGS, "traces", None if spikes is None else spikes.trace)
        _sow(neuron, RECORDINGS, "membranes", before_reset)
        _sow(neuron, RECORDINGS, "currents", current)
    if isinstance(neuron, Neuron) and before_reset is not None and after_reset is not None:
        membranes = _Membranes(*jax.lax.stop_gradient((before_reset, after_reset)))
        object.__setattr__(neuron, "_membranes", membranes)  # not a variable: it ends with this call of the model


def _sow(neuron: nn.Module, collection: str, name: str, value: Any) -> None:
    if value is not None:
        neuron.sow(collection, name, value, reduce_fn=lambda _, new: new, init_fn=float)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
