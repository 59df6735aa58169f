"""The one door: what would be silently wrong is refused here, with a message that names it and says what to do.

Functions are called where a user comes in, once; inside, code trusts code. What JAX, Flax, Optax or Python refuse by
themselves is left to them. Checks look at dtypes, shapes and trees, which costs nothing at run time; only NumPy arrays
and Python numbers are looked at by value.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bsojax._jax import is_traced

Schedule: TypeAlias = Callable[[Any], Any]
ScalarOrSchedule: TypeAlias = float | jax.Array | Schedule


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf in messages and metrics: its keys joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"


def number(name: str, value: Any, low: float, high: float, *, open_above: bool = False) -> Any:
    """Returns a hyperparameter, an int as a float; one that is traced may have any value."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == jnp.bool_:
        raise TypeError(
            f"{name}: got the boolean {value!r} and needs a number. optax.inject_hyperparams casts numbers to the "
            "dtype of the parameters: give it hyperparam_dtype=jnp.float32."
        )
    if is_traced(value):
        return value
    if not low <= value <= high or (open_above and value == high):
        bracket = ")" if open_above or high == math.inf else "]"
        raise ValueError(f"{name}: must be in [{low:g}, {high:g}{bracket}, got {value}.")
    return float(value) if isinstance(value, int) else value


def schedule(name: str, value: ScalarOrSchedule, low: float, high: float, *, open_above: bool = False) -> Schedule:
    """Returns a schedule of the update count; a constant must lie in the range, and stays a constant."""
    if callable(value):
        return value
    constant = number(name, value, low, high, open_above=open_above)
    return lambda count: constant


def positive(owner: str, name: str, value: float, at_least: float | None = None) -> float:
    """Returns a neuron's constant as a float: finite, and above 0 or at least so much."""
    value = float(value)  # under jit a comparison of JAX scalars would be traced
    if not (value > 0 if at_least is None else value >= at_least) or not math.isfinite(value):
        bound = "threshold > 0" if at_least is None else f"time constant >= {at_least:g} time step"
        raise ValueError(f"{name}: {owner} needs a finite {bound}, got {value}.")
    return value


def steps(num_steps: Any) -> int:
    """Returns the number of time steps of a sequence."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer):
        raise TypeError(
            f"num_steps: needs an int, not {num_steps!r}; under optax.inject_hyperparams name it in static_args."
        )
    if num_steps < 1:
        raise ValueError(f"num_steps: a sequence has at least 1 time step, got {num_steps}.")
    return int(num_steps)


def time_step(owner: str, value: Any, num_steps: int) -> Any:
    """Returns a time step; refuses one outside ``0 .. num_steps - 1``, which an index would take for another."""
    if value is None:
        raise ValueError(
            f"time_step: {owner} keeps statistics for each of {num_steps} time steps; pass time_step on from the "
            "model's __call__."
        )
    if not is_traced(value) and not 0 <= int(value) < num_steps:
        raise ValueError(
            f"time_step: {int(value)} is outside 0 .. {num_steps - 1}; {owner} was made with num_steps={num_steps}."
        )
    return value


def delta(name: str, kind: str, update: Any, dtype: Any) -> None:
    """Refuses an update of a sign leaf that adding would turn into something other than flips."""
    if jnp.result_type(update) != dtype:
        raise TypeError(
            f"updates: sign leaf '{name}' got a {jnp.result_type(update)} update, but needs an {kind}. Make bso or "
            "t_bso the last transform that touches this leaf (optax.scale, add_decayed_weights or ema after it break "
            "the delta), and let no other optimizer own it: see bsojax.split_optimizer."
        )


def weights_dtype(dtype: Any) -> None:
    """Refuses a dtype that does not hold -1, or through which no gradient flows."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: weights of +1 and -1 need a floating dtype, not {jnp.dtype(dtype)}.")


def packed(bits: Any, shape: tuple[int, ...]) -> None:
    """Refuses packed signs whose bytes do not fit their shape."""
    expected = ((math.prod(shape) + 7) // 8,)
    if bits.shape != expected or bits.dtype != jnp.uint8:
        raise ValueError(
            f"packed: signs of shape {shape} take uint8{list(expected)}, not {bits.dtype}{list(bits.shape)}; was the "
            "array cut or converted?"
        )


def sign_values(signs: Any) -> None:
    """Refuses leaves that hold no signs: a flip would negate them, whatever they are."""
    leaves = jax.tree_util.tree_leaves_with_path(signs)
    if not leaves:
        raise ValueError(
            "signs: the tree has no leaf to flip; give the model a binary layer, bsojax.BinaryDense or BinaryConv."
        )
    for path, leaf in leaves:
        if jnp.result_type(leaf) == jnp.bool_ or is_traced(leaf):
            continue
        if not np.all(np.abs(np.asarray(leaf)) == 1):
            raise ValueError(
                f"signs: leaf '{leaf_name(path)}' is {jnp.result_type(leaf)} with values other than +1 and -1, so it "
                "holds no signs. Keep binary weights boolean (bsojax.to_signs converts), and give real parameters to "
                "another optimizer (bsojax.split_optimizer, optax.masked)."
            )


def same(name: str, found: Any, expected: Any, cure: str) -> None:
    """Refuses a tree whose leaves have other names, shapes or dtypes than expected, naming the first that differs."""
    _compare(name, _kinds(found), _kinds(expected), cure)


def same_shapes(name: str, tree: Any, like: Any) -> None:
    """Refuses a tree whose leaves differ in name or shape from those of another: they would be broadcast."""
    _compare(name, _shapes(tree), _shapes(like), "they must be of one tree.")


def holds(name: str, tree: Any, needed: Any, cure: str) -> None:
    """Refuses a tree that lacks leaves of another, or holds them in other shapes."""
    shapes, wanted = _shapes(tree), _shapes(needed)
    _compare(name, {leaf: shapes[leaf] for leaf in wanted if leaf in shapes}, wanted, cure)


def _compare(name: str, have: Mapping[str, Any], want: Mapping[str, Any], cure: str) -> None:
    for leaf in (*want, *have):
        if have.get(leaf) != want.get(leaf):
            needs, has = want.get(leaf, "absent"), have.get(leaf, "missing")
            raise ValueError(f"{name}: leaf '{leaf}' must be {needs}, and is {has}; {cure}")


def kept_dtypes(old: Any, new: Any) -> None:
    """Refuses an optimizer state whose leaves change dtype or shape at an update: they were made from booleans."""
    have, want = _kinds(old), _kinds(new)
    for leaf in have:
        if have[leaf] != want.get(leaf, have[leaf]):
            raise TypeError(
                f"optimizer state: '{leaf}' was {have[leaf]} and becomes {want[leaf]}. A transform made its "
                "accumulators from boolean parameters: wrap it in bsojax.on_weights."
            )


def _kinds(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    kinds = {leaf_name(path): getattr(leaf, "dtype", None) or jnp.result_type(leaf) for path, leaf in leaves}
    return {leaf: f"{kinds[leaf]}{list(shape)}" for leaf, shape in _shapes(tree).items()}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {leaf_name(path): tuple(jnp.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def first_batch(x: Any) -> None:
    """Refuses a batch from which no network can be made."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not x.shape or 0 in x.shape:
        raise ValueError(f"x: needs a batch of at least one example, got shape {x.shape}.")


def batch(x: Any, y: Any, input_shape: tuple[int, ...], num_steps: int, *, name: str = "") -> bool:
    """Returns whether x is a (T, batch, ...) sequence rather than a static (batch, ...) frame; y are its labels.

    Refuses what is neither: it would be broadcast, or its pixels taken for other ones.
    """
    _floating_and_labels(x, y, name)
    if 0 in (*x.shape, *y.shape):
        raise ValueError(f"{name}x, {name}y: there is no example in x of shape {x.shape} and y of shape {y.shape}.")
    frame = (len(y), *input_shape)
    if x.shape not in (frame, (num_steps, *frame)):
        raise ValueError(
            f"x, y: the model was initialised for examples of shape {tuple(input_shape)}, so with {len(y)} labels x "
            f"needs the shape {frame}, or {(num_steps, *frame)} for a frame a time step; got {x.shape}."
        )
    return x.shape != frame


def _floating_and_labels(x: Any, y: Any, name: str) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{name}y: needs integer class labels, not {y.dtype}.")
    if y.ndim != 1:
        raise ValueError(f"{name}y: needs one label an example, shape (batch,), got {y.shape}; is it one-hot?")


def values(x: Any, y: Any, num_classes: Any, *, name: str = "", batch_axis: int = 0) -> None:
    """Refuses labels outside the classes and inputs that are not finite, in NumPy arrays; names the first of them."""
    if isinstance(y, np.ndarray) and (wrong := np.flatnonzero((y < 0) | (y >= num_classes))).size:
        raise ValueError(
            f"{name}y: {wrong.size} labels are outside the classes 0 .. {num_classes - 1}, the first at index "
            f"{wrong[0]} ({y[wrong[0]]}); relabel them or give the model more classes."
        )
    if isinstance(x, np.ndarray) and not np.isfinite(x).all():
        axes = tuple(axis for axis in range(x.ndim) if axis != batch_axis)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=axes))
        raise ValueError(
            f"{name}x: {bad.size} examples hold NaN or infinity, the first at index {bad[0]}; repair or drop them."
        )


def check_data(x: Any, y: Any, num_classes: int, *, name: str = "") -> None:
    """Raises unless x is finite, floating and not empty, and y are labels in ``0 .. num_classes - 1``, one an example.

    Use it once on a data set before training; training steps call it on batches that are NumPy arrays.

    Args:
      x: an array of shape ``(examples, ...)``.
      y: integer labels of shape ``(examples,)``.
      num_classes: the number of classes.
      name: put before the arguments' names in messages, such as "train ".

    Raises:
      TypeError: a dtype is wrong.
      ValueError: a shape or a value is wrong; the message names the first offending example.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape[:1] != y.shape[:1]:
        raise ValueError(f"{name}x, {name}y: {x.shape[:1]} examples but {y.shape[:1]} labels.")
    batch(x, y, x.shape[1:], 1, name=name)
    values(x, y, num_classes, name=name)


def logits(value: Any, y: Any) -> None:
    """Refuses a model that returns something other than logits of shape (batch, classes)."""
    if getattr(value, "ndim", None) != 2 or value.shape[0] != len(y):
        raise ValueError(f"model: it must return logits of shape (batch, classes), here ({len(y)}, ...); got {value}.")


def collections(variables: Mapping[str, Any], known: set[str]) -> None:
    """Refuses a model with state that nobody would carry."""
    if unknown := set(variables) - known:
        raise ValueError(
            f"model: it keeps state in {sorted(unknown)}; a training run carries signs, params and batch_stats, and "
            "neurons within a sequence. Put the state in one of these collections."
        )


def window(
    input_shape: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    reach: tuple[int, ...],
) -> None:
    """Refuses a kernel that is larger than the padded image: the result would be empty, and its mean NaN."""
    if any(size + sum(side) < extent for size, side, extent in zip(input_shape[1:3], padding, reach, strict=True)):
        raise ValueError(
            f"kernel_size: {tuple(kernel_size)} with dilation {dilation} does not fit into an input of shape "
            f"{input_shape} with padding {padding}."
        )


def pooling_window(window: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Refuses a window that is larger than the image: the result would be empty, and its mean NaN."""
    if not (1 <= window[0] <= shape[1] and 1 <= window[1] <= shape[2]):
        raise ValueError(f"window: cannot pool an image of shape {shape} by {window}.")


def kernel_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses an input whose channels do not fit the signs that a layer holds."""
    if held != needed:
        raise ValueError(f"x: {owner} holds signs of shape {held}, but this input needs {needed}.")


def floating(name: str, value: Any, owner: str) -> None:
    """Refuses integers, with which surrogate gradients and membranes would be rounded to zero."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: {owner} needs a floating input, not {value.dtype}; convert it first.")


def sharpness(alpha: float) -> None:
    """Refuses a surrogate's sharpness with which no gradient would flow, or one of the wrong sign."""
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha: a surrogate's sharpness is a positive finite number, not {alpha!r}.")


def state_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses a current of another shape than a neuron's state, which would be broadcast."""
    if held != needed:
        raise ValueError(
            f"current: {owner} holds a state of shape {held} and got {needed}; start a new sequence with an empty "
            "'neurons' collection."
        )


def one_of(name: str, value: str, known: Any) -> str:
    """Returns a name; refuses one that is not known."""
    if value not in known:
        raise TypeError(f"{name}: needs one of {', '.join(known)}, not {value!r}.")
    return value


def needs_params(params: Any) -> None:
    """Refuses an update without the parameters, as optax transforms do that need them."""
    if params is None:
        raise ValueError("params: update needs the current parameters, as in tx.update(grads, state, params).")


def one_exchange(axis_name: Any, vote: bool, mesh: Any) -> None:
    """Refuses arguments of which one would be left out of account."""
    if vote and axis_name is None:
        raise ValueError(
            "vote: needs axis_name, the axis of pmap or shard_map whose devices vote; under jit over a mesh the "
            "compiler exchanges gradients."
        )
    if axis_name is not None and mesh is not None:
        raise ValueError("axis_name, mesh: axis_name is for pmap and shard_map, mesh for jit; give one of them.")


def votes_differ(varying_axes: Any) -> None:
    """Refuses votes where shard_map has summed the gradients already, and all devices would vote alike."""
    if varying_axes:
        raise ValueError(
            "vote: where shard_map checks that replicas agree, gradients arrive summed over the devices, and there is "
            "nothing to vote on; give jax.shard_map check_vma=False."
        )


def backward_steps(count: int, num_steps: int) -> None:
    """Refuses a number of backward passes that a sequence does not have."""
    if not 1 <= count <= num_steps:
        raise ValueError(f"backward_steps: must be in 1 .. num_steps, here {num_steps}, got {count}.")


def some_batches(count: int) -> None:
    """Refuses to estimate statistics from nothing: they would stay what they were."""
    if not count:
        raise ValueError("batches: there is none; give at least one batch of training inputs.")


def independent(depends: bool) -> None:
    """Refuses to re-estimate statistics that the model's output in training depends on."""
    if depends:
        raise ValueError(
            "model: its output in training depends on its running statistics (BatchRenorm normalises by them), so they "
            "cannot be re-estimated; they are what training used, so evaluate with them as they are."
        )


def finite_statistics(finite: bool) -> None:
    """Refuses statistics that are not finite: evaluation would be NaN."""
    if not finite:
        raise ValueError("batches: the statistics came out as NaN or infinity; are the inputs and parameters finite?")


def batch_given(*, model: Any, step: Any, x: Any, y: Any) -> None:
    """Refuses a report of what depends on the batch without one."""
    if model is not None and x is None:
        raise ValueError("x: the size of the neurons' state depends on the batch; give x together with model.")
    if step is not None and (x is None or y is None):
        raise ValueError("x, y: the compiled step depends on the batch; give both together with step.")


def known_layers(unknown: set[str]) -> None:
    """Refuses spike rates of layers that a model does not have."""
    if unknown:
        raise ValueError(f"spikes: the model has no layers {sorted(unknown)}; are they another model's metrics?")
