"""A way to train signs: its settings, and the optimizer that they define."""

import abc
from collections.abc import Mapping
from typing import ClassVar, Literal

import optax

MomentumDtype = Literal["float32", "bfloat16", "int16", "int8"]


class Rule(abc.ABC):
    """A way to train signs. Each is a frozen dataclass whose fields are exactly its settings.

    The flag of the same name sets a field; the field's docstring gives its meaning and unit, and its default is what a
    run without the flag uses. A flag for which a rule has no field is refused.

    Attributes:
      label: its name in tables.
      trace: the presynaptic trace of its gradient unless ``--trace`` names another, a key of networks.TRACES.
      through_time: whether the gradient is backpropagated through the whole sequence, for one update per batch;
        otherwise there is one per time step.
      refuses: settings of the run that it does not accept, by name, with the reason.
    """

    label: ClassVar[str]
    trace: ClassVar[str] = "ottt"
    through_time: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        """Returns the optimizer of the signs: a transform of a tree of booleans whose updates are int8 deltas.

        Args:
          updates: how often it is called in the run.
          num_steps: T.
          seed: seed of its random draws.
        """


THROUGH_TIME = dict.fromkeys(("trace", "backward_steps"), "differentiates through time")
"""What a rule that differentiates through time refuses."""
