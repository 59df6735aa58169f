"""A jitted step that checks the values of batches that are NumPy arrays."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bsojax._jax import is_traced
from bsojax.losses import Loss
from bsojax.online._batch import Batch, as_inputs, as_mask, as_targets, batch_of, check_values
from bsojax.online._judge import Seen, counted_labels
from bsojax.online._state import TrainState, not_donated


class Step:
    """A jitted function of state, x and y that refuses NumPy batches with unusable labels or inputs.

    Called with a state and

    - x: a static frame of shape ``(batch, ...)``, shown at every time step, a sequence of shape ``(num_steps, batch,
      ...)``, or a tree of these;
    - y: integer labels of shape ``(batch,)``, or a tree of whatever the loss takes, of shape ``(batch, ...)``; where
      there is a target for each time step, ``(num_steps, batch, ...)``;
    - mask: boolean of shape ``(batch,)`` or ``(T, batch)``, True where an example counts; None means all. Losses,
      gradients, statistics, rates and metrics leave the rest out, and the state of its neurons does not change. With a
      mask per time step x may have fewer than num_steps;
    - rngs: a random key, or a dict of keys by stream. Each time step derives its own from them, except for the stream
      "sequence"; training folds in ``state.step`` too, so that one key serves a whole run;
    - neurons: the neurons' state, from :func:`rest` or the previous call; then "neurons" is among the results.

    Arrays that are already on a device are not checked: what is wrong with them is skipped and counted. Attributes of
    the jitted function, such as ``lower``, are accessible through it. Like any function it is its own copy. It is
    pickled as its constituents, so where these contain closures, as optax transforms do, cloudpickle works and pickle
    does not.

    Args:
      function: a function of state, x, y, mask, rngs and neurons; while it is traced it fills in seen.
      seen: what tracing has revealed.
      num_steps: the number of time steps.
      loss: the user's loss.
      **jit_options: options of ``jax.jit``.
    """

    def __init__(
        self, function: Callable[..., Any], seen: Seen, num_steps: int, loss: Loss, **jit_options: Any
    ) -> None:
        self.__wrapped__ = function
        self._arguments = (function, seen, num_steps, loss), jit_options
        self._seen, self._num_steps, self._loss = seen, num_steps, loss
        self._jitted = jax.jit(function, **jit_options)

    def __call__(
        self, state: TrainState, x: Any, y: Any, *, mask: Any = None, rngs: Any = None, neurons: Any = None
    ) -> Any:
        x, y = as_inputs(x, state.input_shape), as_targets(y)
        mask = as_mask(mask)
        options = {"mask": mask, "rngs": rngs, "neurons": neurons}
        options = {name: value for name, value in options.items() if value is not None}
        on_host = any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((x, y)))
        with not_donated(state):
            if on_host and not any(map(is_traced, jax.tree.leaves((state, mask)))):
                batch = batch_of(x, y, mask, state.input_shape, self._num_steps)
                if batch.has_labels and not self._seen.traced:
                    self._jitted.eval_shape(state, x, y, **options)  # the call below reuses what is traced here
                self._check(batch)
            return self._jitted(state, x, y, **options)

    def _check(self, batch: Batch) -> None:
        labels = batch.has_labels and isinstance(batch.y, np.ndarray)
        counted = counted_labels(self._loss, batch) if labels else None
        counts = None if counted is None else np.asarray(counted)
        check_values(batch, counts, self._seen.num_classes if labels else None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_jitted" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._jitted, name)

    def __copy__(self) -> "Step":
        return self

    def __deepcopy__(self, memo: Any) -> "Step":
        return self

    def __reduce__(self) -> Any:
        return _made, self._arguments  # compiled programs are left out


def _made(arguments: tuple[Any, ...], jit_options: dict[str, Any]) -> Step:
    return Step(*arguments, **jit_options)
