"""How a Linen model is called: on one time step, with the state of its neurons handed in and out."""

import inspect
from typing import Any

import flax.linen as nn
import jax

from bsojax._neurons import IF, LIF, NEURONS, held_before_reset


def call_options(model: nn.Module, *, train: bool, time_step: int | jax.Array) -> dict[str, Any]:
    """Returns those of train and time_step that the model's ``__call__`` takes."""
    parameters = inspect.signature(type(model).__call__).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options = {"train": train, "time_step": time_step}
    return {name: value for name, value in options.items() if anything or name in parameters}


def resting_neurons(model: nn.Module, frame: jax.Array) -> Any:
    """Returns the state of the model's neurons at the start of a sequence.

    Under jit everything but the constants of that state is dead code to the compiler.
    """
    variables = model.init(jax.random.key(0), frame, **call_options(model, train=True, time_step=0))
    return variables.get(NEURONS, {})


def training_neurons(model: nn.Module, frame: jax.Array) -> Any:
    """Returns the same for training, where LIF and IF hold the membrane before the reset, which the gradient needs."""
    paths = set()

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if type(context.module) in (LIF, IF):  # a class derived from them may look at its membrane
            paths.add(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        neurons = resting_neurons(model, frame)
    return held_before_reset(neurons, paths)


def infer(
    model: nn.Module, variables: dict[str, Any], neurons: Any, frame: jax.Array, time_step: int | jax.Array
) -> tuple[jax.Array, Any]:
    """Returns the logits and the neurons' new state of one time step of inference."""
    options = call_options(model, train=False, time_step=time_step)
    logits, changed = model.apply({**variables, NEURONS: neurons}, frame, mutable=[NEURONS], **options)
    return logits, changed.get(NEURONS, neurons)
