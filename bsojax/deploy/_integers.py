"""Converts a trained network to whole numbers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _validate, signs
from bsojax.deploy._layers import NOT_KNOWN, RULES, image
from bsojax.deploy._marks import marked
from bsojax.deploy._network import IntegerNetwork
from bsojax.deploy._reading import read
from bsojax.deploy._values import Builder
from bsojax.deploy._whole import Numbers, whole
from bsojax.online import TrainState, as_inputs, batch_of, not_donated


def integer_network(
    model: nn.Module,
    state: TrainState,
    x: Any,
    num_steps: int,
    *,
    input_scale: float,
    input_max: int,
    input_min: int = 0,
    membrane_bits: int = 32,
    weight_bits: int | None = None,
) -> IntegerNetwork:
    """Returns a trained network in whole numbers, which runs without JAX and gives the same bits everywhere.

    Use it to ship a network: see ``write_c``, ``save``, ``report`` and ``to_nir`` of its result. Norms, biases and the
    scales of weights become a whole gain and shift per channel; real weights become whole numbers; membranes have as
    many fraction bits as are proven safe for any input between input_min and input_max. Where the optimizer keeps
    deployed signs beside those that it trains, the deployed ones are used.

    Predictions agree with ``make_eval_step`` except where a membrane lies within rounding of its threshold; compare
    them on your own data before you ship. Rounding in the model itself, as by ``x.astype("bfloat16")``, is not
    reproduced here.

    Args:
      model: a Linen module built from the layers and functions of this library, except layers that recur and classes
        derived from them; between the layers, sums, and sums and products with constants.
      state: the training state.
      x: a batch of inputs as the model takes them, arrays or ``jax.ShapeDtypeStruct``: static frames ``(batch, ...)``,
        or a sequence ``(num_steps, batch, ...)``.
      num_steps: the number of time steps.
      input_scale: the inputs of the network are those of the model times this, and whole: 255 for images of bytes.
        Inputs that are not whole, such as spectra or normalised images, must be rounded to such a grid.
      input_max: the largest whole input.
      input_min: the smallest, at most 0.
      membrane_bits: the width of membranes, 8 to 32; 16 halves the memory of streams on a device.
      weight_bits: the width of real weights, at most 24, the default.

    Raises:
      TypeError: num_steps or another number is not one.
      ValueError: a number is out of range, or part of the model cannot be expressed in whole numbers; the error names
        it.
    """
    num_steps = _validate.steps(num_steps)
    numbers = Numbers(
        _validate.positive_number("input_scale", input_scale),
        *_validate.input_range(input_min, input_max),
        _validate.whole_between("membrane_bits", membrane_bits, 8, 32),
        _validate.whole_between("weight_bits", 24 if weight_bits is None else weight_bits, 2, 24),
    )
    x = as_inputs(x, state.input_shape)
    if not hasattr(x, "shape"):
        _validate.not_deployable("x", "networks of several inputs are not known")
    is_sequence = batch_of(x, None, None, state.input_shape, num_steps).moving_x[0]
    shape = tuple(x.shape[1 + is_sequence :])
    frame = jax.ShapeDtypeStruct((2, *shape), x.dtype)  # two examples: one is like any other axis of one
    with not_donated(state):
        held: Any = jax.device_get(signs.unpack_signs(state.variables))
    variables = jax.tree.map(np.asarray, nn.meta.unbox(held))
    _validate.finite_leaves("state", variables)
    builder = Builder(image(shape), num_steps, RULES)
    program = marked(model, jax.tree.map(jnp.asarray, variables), frame, num_steps, _is_known)
    graph = builder.graph(read(program, builder), is_sequence)
    found = whole(graph, numbers)
    return IntegerNetwork(
        found.graph,
        shape,
        numbers.input_scale,
        numbers.input_min,
        numbers.input_max,
        numbers.membrane_bits,
        found.logit_scale,
    )


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer can be expressed in whole numbers; refuses those that cannot."""
    if type(layer) in RULES:
        return True
    for kinds, cure in NOT_KNOWN.items():
        if isinstance(layer, kinds):
            kind = "flax's " * type(layer).__module__.startswith("flax.") + type(layer).__name__
            _validate.not_deployable(f"'{'/'.join(layer.path)}'", f"{kind} is not known; {cure}")
    return False
