"""A jitted step that checks the values of its batches."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bsojax._checks import check_logits, check_values, is_sequence, on_host
from bsojax._kinds import as_host_array
from bsojax._model import infer
from bsojax._state import TrainState, check_is_state, check_train_state, check_variables


class Step:
    """A jitted step that first looks at the values of batches which lie in host memory.

    Attributes of the jitted function, such as ``lower``, are reached through it.
    """

    def __init__(self, function: Callable[..., Any], model: nn.Module, num_steps: int, **jit_options: Any) -> None:
        self._jitted = jax.jit(function, **jit_options)
        self._model = model
        self._num_steps = num_steps
        self._num_classes: int | None = None
        self.__wrapped__ = function
        self.__doc__ = function.__doc__

    def __call__(self, state: TrainState, x: Any, y: Any) -> Any:
        check_is_state(state)
        x, y = (
            value if isinstance(value, jax.Array) else as_host_array(name, value)
            for name, value in (("x", x), ("y", y))
        )
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in (x, y, *jax.tree.leaves(state)))
        if not traced and (self._num_classes is None or (on_host(x) and on_host(y))):
            self._check(state, x, y)
        try:
            return self._jitted(state, x, y)
        except (TypeError, ValueError, OverflowError):
            check_train_state(state)  # names the leaf, where jit met one that is no array
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jitted, name)

    def _check(self, state: TrainState, x: Any, y: Any) -> None:
        sequence = is_sequence(x, y, state.input_shape, self._num_steps)
        if self._num_classes is None:
            check_train_state(state)
            frame = jax.ShapeDtypeStruct((len(y), *state.input_shape), x.dtype)
            try:
                logits, _ = jax.eval_shape(lambda v, x: infer(self._model, v, {}, x, 0), state.variables, frame)
            except Exception:
                check_variables(self._model, state, frame, train=False)  # names what does not fit
                raise
            check_logits(logits, y)
            self._num_classes = logits.shape[-1]
        check_values(np.asarray(x), np.asarray(y), self._num_classes, batch_axis=int(sequence))
