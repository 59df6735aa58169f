"""A trained network as a StableHLO program, which needs neither this library nor Flax."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _jax, _validate
from bsojax.online import InputShapes, TrainState, as_inputs, batch_of, not_donated, predict
from bsojax.signs import unpack_signs


def export_inference(
    model: nn.Module,
    state: TrainState,
    num_steps: int,
    *,
    x: Any = None,
    per_step: bool = False,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> jax.export.Exported:
    """Returns the function of :func:`bsojax.predict` for a network, as one StableHLO program for batches of any size.

    Use it to ship a network to where JAX or another compiler of StableHLO runs: ``exported.serialize()`` returns its
    bytes, and ``jax.export.deserialize(data).call(x)`` the outputs, on any of the platforms. It contains the signs to
    ship, from ``state.variables``, at one bit per weight whether they are packed or not; real parameters and statistics
    are float32, and nothing of the training is left. As in predict, inputs that are not finite give NaN outputs, for
    their examples only.

    On a CPU the outputs are those of predict, bit for bit, with one exception: where predict sums a real convolution of
    a large batch along rows, as for colour images, the program does not. Currents of that layer may then differ in
    their last bit, and outputs only if a membrane is that close to its threshold.

    Serialising needs the package ``flatbuffers``: ``pip install 'bsojax[export]'``.

    Example:
      >>> import jax, numpy as np, optax, bsojax
      >>> model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
      >>> tx = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.9), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), np.ones((2, 5), np.float32))
      >>> exported = bsojax.deploy.export_inference(model, state, 4)
      >>> exported.call(np.ones((7, 5), np.float32)).shape
      (7, 3)

    Args:
      model: a Linen module (see init).
      state: the training state; neither changed nor donated.
      num_steps: the number of time steps.
      x: a batch like those that the program will receive, as in predict: a frame ``(batch, ...)``, a sequence
        ``(num_steps, batch, ...)``, or a tree of these; only shapes and dtypes matter, except for the size of the
        batch, so a ``jax.ShapeDtypeStruct`` will do. None: float32 frames of the shape with which the model was
        initialised.
      per_step: whether outputs are returned for each time step instead of summed.
      platforms: the platforms of the program: any of "cpu", "cuda", "rocm" and "tpu".

    Returns:
      A program with one argument, x.

    Raises:
      TypeError: x is not floating, or the model is not a Linen module.
      ValueError: x, state and model do not fit each other, or a platform is unknown.
    """
    _validate.linen(model)
    platforms = _validate.platforms(platforms)
    num_steps = _validate.steps(num_steps)
    inputs = _of_any_batch(x, state.input_shape, num_steps)
    with not_donated(state):
        kept = unpack_signs(jax.device_get(state.variables))  # booleans, which the program holds at one bit each
    bare = dataclasses.replace(state, opt_state=(), step=jnp.zeros(()), skipped=jnp.zeros(()), **kept)
    program = _jax.without_dead_code(lambda x: predict(model, bare, x, num_steps, per_step=per_step), inputs)
    with _jax.without_source_paths():
        return jax.export.export(jax.jit(program), platforms=platforms)(inputs)


def _of_any_batch(x: Any, input_shape: Any, num_steps: int) -> Any:
    """Returns the shapes and dtypes of inputs whose batch has a symbolic size."""
    (size,) = jax.export.symbolic_shape("batch")
    x = _frames(input_shape) if x is None else as_inputs(x, input_shape)
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), x)
    moving = iter(batch_of(x, None, None, input_shape, num_steps).moving_x)

    def of_any(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        axis = int(next(moving))
        return jax.ShapeDtypeStruct((*leaf.shape[:axis], size, *leaf.shape[axis + 1 :]), leaf.dtype)

    return jax.tree.map(of_any, x)


def _frames(input_shape: Any) -> Any:
    """Frames of the shape with which a model was initialised."""
    several = isinstance(input_shape, InputShapes)
    shapes = input_shape.shapes if several else (input_shape,)
    frames = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]
    return jax.tree.unflatten(input_shape.structure, frames) if several else frames[0]
