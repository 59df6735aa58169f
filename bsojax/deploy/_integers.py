"""From a trained network to the same in whole numbers."""

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

    Use it to ship a network: see ``write_c``, ``save``, ``report`` and ``to_nir`` of what it returns. Norms, biases
    and the scales of weights become a whole gain and shift a channel; real weights become whole numbers; membranes
    have as many fraction bits as is proven to be safe for any input between input_min and input_max. Where the
    optimizer keeps deployed signs beside those it trains at, the deployed ones go out.

    Predictions agree with ``make_eval_step`` but where a membrane lies within rounding of its threshold; compare them
    on data of yours before you ship. What a model rounds itself, as by ``x.astype("bfloat16")``, is not rounded here.

    Args:
      model: a Linen module made of the layers and functions of this library that neither recur nor derive from them;
        between them sums, and sums and products with constants.
      state: the training state.
      x: a batch of inputs as the model takes them, arrays or ``jax.ShapeDtypeStruct``: static frames
        ``(batch, ...)``, or a sequence ``(num_steps, batch, ...)``.
      num_steps: the number of time steps.
      input_scale: the inputs of the network are those of the model times this, and whole: 255 for images of bytes.
        Inputs that are not, such as spectra or normalised images, need rounding to such a grid.
      input_max: the largest whole input.
      input_min: the least, at most 0.
      membrane_bits: the width of membranes, 8 to 32; 16 halves the memory of streams on a device.
      weight_bits: the width of real weights, at most 24, which is the default.

    Raises:
      TypeError: num_steps, or another number, is none.
      ValueError: a number is out of range; or something in the model cannot be said in whole numbers, which the error
        names.
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
    frame = jax.ShapeDtypeStruct((2, *shape), x.dtype)  # of two examples: one is like any other axis of one
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
    """Whether a layer is one that whole numbers can say; refuses those that are not."""
    if type(layer) in RULES:
        return True
    for kinds, cure in NOT_KNOWN.items():
        if isinstance(layer, kinds):
            kind = "flax's " * type(layer).__module__.startswith("flax.") + type(layer).__name__
            _validate.not_deployable(f"'{'/'.join(layer.path)}'", f"{kind} is not known; {cure}")
    return False
