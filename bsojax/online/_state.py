"""The state of a training run: what outlives an input sequence."""

import contextlib
from collections.abc import Iterator
from typing import Any

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bsojax import _jax, _validate
from bsojax.nn import NEURONS, SPIKE_RATES
from bsojax.online._batch import shapes_of
from bsojax.online._model import LOSSES, call_options, check_flag
from bsojax.optim import deployed_signs
from bsojax.signs import pack_signs, unpack_signs

_KNOWN = {"signs", "params", "batch_stats", NEURONS, SPIKE_RATES, LOSSES, "intermediates"}


@flax.struct.dataclass
class TrainState:
    """Everything that a training run carries from one batch to the next; a pytree.

    Attributes:
      signs: the trained binary weights, a tree of booleans or of PackedSigns.
      params: float32 tree, the real parameters.
      batch_stats: float32 tree, the running statistics of the norms.
      opt_state: the optimizer's state over ``{"signs": signs, "params": params}``.
      step: int32, the number of batches seen.
      skipped: int32, the number of updates skipped because a loss or gradient was not finite.
      input_shape: the shape of one example at one time step, without the batch axis (not traced); for a tree of inputs
        :class:`InputShapes`.
    """

    signs: chex.ArrayTree
    params: chex.ArrayTree
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    step: jax.Array
    skipped: jax.Array
    input_shape: Any = flax.struct.field(pytree_node=False)

    @property
    def trainable(self) -> dict[str, chex.ArrayTree]:
        """The tree that the optimizer owns."""
        return {"signs": self.signs, "params": self.params}

    @property
    def variables(self) -> dict[str, chex.ArrayTree]:
        """The collections for ``model.apply``; "neurons" is missing, so a forward pass starts from rest.

        Where the optimizer keeps deployed signs beside those that it trains, these are the deployed ones, to evaluate,
        save and export (see deployed_signs).
        """
        signs = deployed_signs(self.opt_state, self.signs)
        return {"signs": signs, "params": self.params, "batch_stats": self.batch_stats}


def init(
    model: nn.Module, tx: optax.GradientTransformation, key: chex.PRNGKey, x: Any, *, packed: bool = False
) -> TrainState:
    """Draws a model's signs and real parameters and starts the optimizer.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> [(leaf.dtype, leaf.shape) for leaf in jax.tree.leaves(state.signs)]
      [(dtype('bool'), (8, 8))]

    Args:
      model: a Flax Linen module whose ``__call__`` takes a batch of one time step and returns logits, or any tree of
        arrays; if it also takes ``train`` (or ``training``, ``is_training``, ``deterministic``,
        ``use_running_average``) and ``time_step``, it receives them.
      tx: an optimizer over ``{"signs": ..., "params": ...}``, see split_optimizer.
      key: a PRNG key.
      x: a batch of one time step, floating, of the shape that training will use, or a tree of these; only shapes and
        dtypes matter, so a ``jax.ShapeDtypeStruct`` will do.
      packed: whether the signs are kept at one bit per weight: the network and its training are the same, bit for bit,
        and layers unpack their signs when they need them. Layers must be bsojax's.

    Raises:
      TypeError: x is not floating, or the model is not a Linen module.
      ValueError: x contains no example, the model keeps state in an unknown collection or has no binary layer, or it
        has running statistics and takes no training flag.
    """
    _validate.linen(model)
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), x)
    jax.tree.map(_validate.first_batch, x)
    kwargs = call_options(model, train=True, time_step=0)

    @jax.jit
    def make(key: chex.PRNGKey) -> dict[str, Any]:
        variables = model.init(key, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x), **kwargs)
        _validate.collections(variables, _KNOWN)
        check_flag(model, variables)
        kept: dict[str, Any] = {name: variables.get(name, {}) for name in ("signs", "params", "batch_stats")}
        return kept

    if not _jax.is_traced(key) and jax.default_backend() == "cpu" and not _jax.jit_is_disabled():
        # The random numbers' code is long and runs once: optimising it would take longer than all the rest.
        variables = make.lower(key).compile({"xla_backend_optimization_level": "1"})(key)
    else:
        variables = make(key)
    opt_state = tx.init({"signs": variables["signs"], "params": variables["params"]})  # never of packed signs
    if packed:
        variables["signs"] = pack_signs(variables["signs"])
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        opt_state=opt_state,
        step=zero,
        skipped=zero + 0,  # two buffers: a step donates both
        input_shape=shapes_of(x),
        **variables,
    )


@contextlib.contextmanager
def not_donated(state: TrainState) -> Iterator[None]:
    """A context that explains, by a ValueError, failures caused by a step having taken over a state's memory."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array) and not _jax.is_traced(leaf)]
        if any(leaf.is_deleted() for leaf in arrays):
            raise _validate.donated(error) from error
        raise


def check_state(state: TrainState, variables: dict[str, Any], tx: optax.GradientTransformation | None = None) -> None:
    """Raises ValueError unless a state holds the model's variables, in the right shapes, and its optimizer's state.

    Args:
      state: the state.
      variables: arrays like the variables that the model creates.
      tx: the optimizer; None means that its state does not matter.
    """
    made = nn.meta.unbox({name: variables.get(name, {}) for name in ("signs", "params", "batch_stats")})
    held = nn.meta.unbox(jax.eval_shape(lambda state: unpack_signs(state.variables), state))
    _validate.holds("state", held, made, "was it made with another model?")
    if tx is None:
        return
    _validate.same("state", {"signs": held["signs"]}, {"signs": made["signs"]}, "bsojax.to_signs makes booleans.")
    try:
        expected = jax.eval_shape(lambda trainable: tx.init(unpack_signs(trainable)), state.trainable)
    except jax.errors.JAXTypeError:  # an init that depends on values, which are not available here
        return
    _validate.same("state", {"opt_state": state.opt_state}, {"opt_state": expected}, "was it made with another "
                   "optimizer, num_steps or momentum_dtype? state.replace(opt_state=tx.init(state.trainable)) starts "
                   "it anew. Or were parameters cast? They rest in float32: give make_train_step a dtype.")  # fmt: skip
