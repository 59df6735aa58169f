"""A jitted step that looks at the values of batches which are NumPy arrays."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bsojax import _validate
from bsojax._jax import is_traced
from bsojax.online._state import TrainState


class Seen:
    """What tracing a step has shown.

    Attributes:
      num_classes: the number of logits of an example; None: it has not been traced yet.
    """

    num_classes: int | None = None


class Step:
    """A jitted function of state, x and y that refuses NumPy batches with labels or inputs of no use.

    Arrays that already lie on a device are not looked at: what is wrong with them is skipped and counted. Attributes
    of the jitted function, such as ``lower``, are reached through it. As any function it is its own copy; pickled it
    is what it was made of, so that where that holds functions of functions, as optax transforms do, cloudpickle can
    and pickle cannot.

    Args:
      function: of state, x and y; while it is traced it fills in what it has seen.
      seen: that.
      num_steps: the number of time steps.
      **jit_options: as ``jax.jit`` takes them.
    """

    def __init__(self, function: Callable[..., Any], seen: Seen, num_steps: int, **jit_options: Any) -> None:
        self.__wrapped__ = function
        self._arguments = (function, seen, num_steps), jit_options
        self._seen, self._num_steps = seen, num_steps
        self._jitted = jax.jit(function, **jit_options)

    def __call__(self, state: TrainState, x: Any, y: Any) -> Any:
        x, y = (value if isinstance(value, jax.Array) else np.asarray(value) for value in (x, y))
        on_host = isinstance(x, np.ndarray) or isinstance(y, np.ndarray)
        if on_host and not any(map(is_traced, jax.tree.leaves(state))):
            if self._seen.num_classes is None:
                self._jitted.eval_shape(state, x, y)  # the call below finds what is traced here
            sequence = _validate.batch(x, y, state.input_shape, self._num_steps)
            _validate.values(x, y, self._seen.num_classes, batch_axis=int(sequence))
        return self._jitted(state, x, y)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_jitted" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._jitted, name)

    def __copy__(self) -> "Step":
        return self

    def __deepcopy__(self, memo: Any) -> "Step":
        return self

    def __reduce__(self) -> Any:
        return _made, self._arguments  # compiled programs stay behind


def _made(arguments: tuple[Any, ...], jit_options: dict[str, Any]) -> Step:
    return Step(*arguments, **jit_options)
