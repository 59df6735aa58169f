"""The state of a training run: what outlives an input sequence."""

from typing import Any

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bsojax._kinds import ARRAYS, check_array, check_bool, check_leaves, check_model, check_optimizer
from bsojax._model import call_options
from bsojax._neurons import NEURONS, SPIKE_RATES
from bsojax._packing import is_packed, is_shape, pack_signs

_KNOWN = {"signs", "params", "batch_stats", NEURONS, SPIKE_RATES, "intermediates"}


@flax.struct.dataclass
class TrainState:
    """Everything that a training run carries from one batch to the next; a pytree.

    Attributes:
      signs: the binary weights, a tree of booleans or of PackedSigns.
      params: float32 tree, the real parameters.
      batch_stats: float32 tree, the running statistics of the norms.
      opt_state: the optimizer's state over ``{"signs": signs, "params": params}``.
      step: int32, the number of batches seen.
      skipped: int32, the number of updates skipped because a loss or gradient was not finite.
      input_shape: the shape of one example at one time step, without the batch (not traced).
    """

    signs: chex.ArrayTree
    params: chex.ArrayTree
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    step: jax.Array
    skipped: jax.Array
    input_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def trainable(self) -> dict[str, chex.ArrayTree]:
        """The tree that the optimizer owns."""
        return {"signs": self.signs, "params": self.params}

    @property
    def variables(self) -> dict[str, chex.ArrayTree]:
        """The collections for ``model.apply``; "neurons" is missing, so a forward pass starts from rest."""
        return {**self.trainable, "batch_stats": self.batch_stats}


def init(
    model: nn.Module, tx: optax.GradientTransformation, key: chex.PRNGKey, x: Any, *, packed: bool = False
) -> TrainState:
    """Draws a model's signs and real parameters and starts the optimizer.

    Args:
      model: a Flax Linen module whose ``__call__`` takes a batch of one time step and returns logits; if it also takes
        ``train`` and ``time_step`` it is given them.
      tx: an optimizer over ``{"signs": ..., "params": ...}``, see split_optimizer.
      key: a PRNG key.
      x: a batch of one time step, floating, of the shape that training will use; only its shape and dtype matter, and a
        ``jax.ShapeDtypeStruct`` does.
      packed: whether the signs are kept at one bit a weight: the same network and the same training, bit for bit, whose
        layers unpack their signs when they need them. Layers must be bsojax's.

    Raises:
      TypeError, ValueError: x is not a floating batch, the model keeps state in an unknown collection, has no binary
        layer, or the optimizer refuses the tree.
    """
    check_model(model)
    check_optimizer("tx", tx)
    check_bool("packed", packed)
    check_array("x", x, or_shape=True)
    _check_key(key)
    x = jax.ShapeDtypeStruct(tuple(map(int, jnp.shape(x))), jnp.result_type(x))
    if x.ndim < 1 or 0 in x.shape:
        raise ValueError(f"x: needs a batch of at least one example, got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    kwargs = call_options(model, train=True, time_step=0)

    @jax.jit
    def make(key: chex.PRNGKey) -> dict[str, Any]:
        variables = model.init(key, jnp.zeros(x.shape, x.dtype), **kwargs)
        unknown = set(variables) - _KNOWN
        if unknown:
            raise ValueError(
                f"model: it keeps state in {sorted(unknown)}; a training run carries signs, params and batch_stats, "
                "and neurons within a sequence. Put the state in one of these collections."
            )
        kept: dict[str, Any] = {name: variables.get(name, {}) for name in ("signs", "params", "batch_stats")}
        return kept

    if not isinstance(key, jax.core.Tracer) and jax.default_backend() == "cpu":
        # The random numbers' code is long and runs once: optimising it took longer than all the rest.
        variables = make.lower(key).compile({"xla_backend_optimization_level": "1"})(key)
    else:
        variables = make(key)
    if packed:
        variables["signs"] = pack_signs(variables["signs"])
    opt_state = tx.init({"signs": variables["signs"], "params": variables["params"]})
    zero = jnp.zeros((), jnp.int32)
    return TrainState(opt_state=opt_state, step=zero, skipped=zero + 0, input_shape=x.shape[1:], **variables)


def _check_key(key: Any) -> None:
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if not typed and not (isinstance(key, ARRAYS) and (key.dtype, key.shape) == (raw.dtype, raw.shape)):
        raise TypeError(f"key: needs a PRNG key such as jax.random.key(0), not {key!r}.")


def check_is_state(state: Any) -> None:
    """Raises unless state is a TrainState that says what it takes; quick enough for every step."""
    if not isinstance(state, TrainState):
        raise TypeError(f"state: needs a TrainState, as bsojax.init returns it, not a {type(state).__name__}.")
    if not is_shape(state.input_shape):
        raise TypeError(f"state: its input_shape needs a tuple of ints, not {state.input_shape!r}.")


def check_train_state(state: Any, *, or_shape: bool = False) -> None:
    """Raises unless state is a TrainState of arrays, or their shapes and dtypes, with integer counters."""
    check_is_state(state)
    check_leaves("state", state, or_shape=or_shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state, is_leaf=is_packed):
        if is_packed(leaf) and not is_shape(leaf.shape):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TypeError(f"state: leaf '{name}' holds packed signs of the shape {leaf.shape!r}, which is none.")
    for name in ("step", "skipped"):
        value = getattr(state, name)
        is_leaf = jax.tree_util.all_leaves([value])
        if not is_leaf or not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise TypeError(f"state: its {name} needs an integer, not {value!r}.")


def check_variables(model: nn.Module, state: TrainState, frame: Any, *, train: bool) -> None:
    """Raises unless the state holds every variable that the model makes for a frame, of the shape that it makes."""

    def make(frame: jax.Array) -> dict[str, Any]:
        variables = model.init(jax.random.key(0), frame, **call_options(model, train=train, time_step=0))
        return {name: variables.get(name, {}) for name in ("signs", "params", "batch_stats")}

    held = _shapes(state.variables)
    for name, shape in _shapes(jax.eval_shape(make, frame)).items():
        if held.get(name) != shape:
            got = f"shape {held[name]}" if name in held else "nothing"
            raise ValueError(
                f"state: the model needs '{name}' of shape {shape}, and the state holds {got}; was it made with "
                "another model?"
            )


def check_optimizer_state(tx: optax.GradientTransformation, state: TrainState) -> None:
    """Raises unless the optimizer's state has the tree that the optimizer makes for the weights."""
    try:
        expected: Any = jax.tree.structure(jax.eval_shape(tx.init, state.trainable))
    except jax.errors.JAXTypeError:  # an init that looks at values, which are not to be seen here
        return
    found: Any = jax.tree.structure(state.opt_state)
    if found != expected:
        raise ValueError(
            f"state: its opt_state has the tree {found}, and the optimizer makes {expected}; was the state made with "
            "another optimizer?"
        )


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    flat = jax.tree_util.tree_leaves_with_path(nn.meta.unbox(variables), is_leaf=is_packed)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(
            leaf.shape if is_packed(leaf) else jnp.shape(leaf)
        )
        for path, leaf in flat
    }
