"""What neurons carry from one time step to the next, and the form in which they hold it."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import flax
import jax

NEURONS = "neurons"
"""The collection of the neurons' state."""


@flax.struct.dataclass
class BeforeReset:
    """A state variable as training carries it from one time step to the next: before the reset.

    The gradient needs it, and the spikes and the state after the reset follow from it, so a loop carries only one array
    per neuron. Where a neuron's variable is a plain array, it is the one after the reset.

    Attributes:
      value: the membrane, or another variable that changes at a spike, as it was when the spike was decided.
    """

    value: jax.Array


class StateForm(NamedTuple):
    """How the neurons of this library hold their state.

    Attributes:
      before_reset: whether the membrane, and whatever changes with it at a spike, is :class:`BeforeReset`, as training
        needs it.
      traces: whether traces are kept.
    """

    before_reset: bool
    traces: bool


_PUBLIC = StateForm(before_reset=False, traces=True)
_FORM = contextvars.ContextVar("bsojax_state_form", default=_PUBLIC)


@contextlib.contextmanager
def resting_as(form: StateForm) -> Iterator[None]:
    """A context in which neurons that start hold their state in this form and keep it; so do classes derived from them.

    Use it around ``model.init`` in a loop of your own; ``bsojax.online.start`` does.
    """
    token = _FORM.set(form)
    try:
        yield
    finally:
        _FORM.reset(token)


def state_form() -> StateForm:
    """Returns the form in which neurons that start hold their state."""
    return _FORM.get()
