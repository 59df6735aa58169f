"""What a way to train signs is: its settings, and the optimizer that they make."""

import abc
from collections.abc import Mapping
from typing import ClassVar, Literal

import optax

MomentumDtype = Literal["float32", "bfloat16", "int16", "int8"]


class Rule(abc.ABC):
    """A way to train signs. Each is a frozen dataclass whose fields are its settings, and nothing but its settings.

    A field is what the flag of its name sets; its docstring says what it means and in which unit, its default is what
    a run without the flag takes. A flag for which a rule has no field is refused.

    Attributes:
      label: what tables call it.
      trace: the presynaptic trace of its gradient where ``--trace`` names no other, a key of networks.TRACES.
      through_time: whether the gradient is backpropagated through the whole sequence, for one update a batch; otherwise
        there is one a time step.
      refuses: settings of the run that do not go with it, by name, with the reason.
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
          seed: of all that it draws at random.
        """


THROUGH_TIME = dict.fromkeys(("trace", "backward_steps"), "differentiates through time")
"""What a rule refuses that differentiates through time."""
