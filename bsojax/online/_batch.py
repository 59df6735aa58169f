"""A batch as a loop over time steps sees it: what is a sequence, what counts, which random keys there are."""

import dataclasses
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _validate
from bsojax._validate import leaf_name

SEQUENCE = "sequence"
"""The stream of random keys that stay the same over the time steps of a sequence."""


@flax.struct.dataclass
class PerStep:
    """Targets of shape ``(T, batch, ...)``, one per time step; needed if there are as many examples as steps."""

    value: Any


@flax.struct.dataclass
class PerExample:
    """Targets of shape ``(batch, ...)``; needed where there are as many examples as time steps."""

    value: Any


@dataclasses.dataclass(frozen=True)
class InputShapes:
    """The shapes of one example of a model with several inputs, without the batch axis.

    Attributes:
      structure: the structure of the tree of inputs.
      shapes: the shapes of its leaves.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch whose parts are consistent with each other and with the model.

    Attributes:
      x: tree of inputs.
      y: tree of targets, or None.
      mask: which examples count at which time step, boolean of shape ``(num_steps, size)``; None means all.
      num_steps: the number of time steps of this batch.
      size: the number of examples.
      moving_x, moving_y: for each leaf, in order, whether it has a value per time step.
    """

    x: Any
    y: Any
    mask: jax.Array | None
    num_steps: int
    size: int
    moving_x: tuple[bool, ...]
    moving_y: tuple[bool, ...]

    @property
    def has_labels(self) -> bool:
        """Whether the targets are class labels: one array of integers, one per example or per time step of one."""
        y: Any = self.y
        return hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 1 + sum(self.moving_y)

    @property
    def per_step(self) -> bool:
        """Whether there are targets per time step."""
        return any(self.moving_y)

    def counted(self, t: int | jax.Array) -> jax.Array | None:
        """Returns which examples count at a time step; None means all."""
        return None if self.mask is None else self.mask[t]

    def frame(self, t: int | jax.Array) -> Any:
        """Returns the inputs of a time step, with zeros where an example does not count, whatever the padding is."""
        return self._kept(_at(self.x, self.moving_x, t), t)

    def target(self, t: int | jax.Array) -> Any:
        """Returns the targets of a time step, likewise; class labels as int32, whatever their dtype is."""
        y = _at(self.y, self.moving_y, t)
        return self._kept(y.astype(jnp.int32) if self.has_labels else y, t)

    def counted_x(self) -> Any:
        """Returns the inputs with zeros for padding."""
        if self.mask is None:
            return self.x
        leaves, structure = jax.tree.flatten(self.x)
        kept = []
        for leaf, moves in zip(leaves, self.moving_x, strict=True):
            mask = self.mask if moves else jnp.any(self.mask, 0)
            kept.append(jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf, 0))
        return jax.tree.unflatten(structure, kept)

    def finite_examples(self) -> jax.Array:
        """Returns for which examples all inputs that count are finite, boolean of shape ``(batch,)``."""
        found = jnp.ones((self.size,), bool)
        for leaf, moves in zip(jax.tree.leaves(self.counted_x()), self.moving_x, strict=True):
            axes = tuple(axis for axis in range(leaf.ndim) if axis != int(moves))
            found &= jnp.all(jnp.isfinite(leaf), axes)
        return found

    def _kept(self, tree: Any, t: int | jax.Array) -> Any:
        counted = self.counted(t)
        if counted is None:
            return tree
        return jax.tree.map(lambda leaf: jnp.where(along(counted, leaf), leaf, jnp.zeros_like(leaf)), tree)


def _at(tree: Any, moving: tuple[bool, ...], t: int | jax.Array) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    now = [leaf[t] if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
    return jax.tree.unflatten(structure, now)


def along(counted: jax.Array, leaf: Any, axis: int = 0) -> jax.Array:
    """Returns one boolean per example as an array that broadcasts to a leaf whose batch is at the given axis."""
    return counted.reshape((1,) * axis + counted.shape + (1,) * (jnp.ndim(leaf) - axis - 1))


def shapes_of(x: Any) -> Any:
    """Returns the shape of one example: a tuple, or InputShapes for a tree of inputs."""
    leaves, structure = jax.tree.flatten(x)
    shapes = tuple(tuple(jnp.shape(leaf)[1:]) for leaf in leaves)
    return shapes[0] if jax.tree_util.treedef_is_leaf(structure) else InputShapes(structure, shapes)


def as_inputs(x: Any, input_shape: Any) -> Any:
    """Returns inputs as arrays; anything else becomes a NumPy array, also nested lists where there is one input."""
    return jax.tree.map(_array, x) if isinstance(input_shape, InputShapes) else _array(x)


def as_mask(mask: Any) -> Any:
    """Returns a mask as an array, or None."""
    return None if mask is None else _array(mask)


def as_targets(y: Any) -> Any:
    """Returns targets as a tree of arrays; a list of numbers becomes one array."""
    if isinstance(y, PerStep | PerExample):
        return type(y)(as_targets(y.value))
    is_numbers = isinstance(y, list | tuple) and all(np.isscalar(leaf) for leaf in jax.tree.leaves(y))
    return _array(y) if is_numbers else jax.tree.map(_array, y)


def _array(value: Any) -> Any:
    return value if isinstance(value, jax.Array | jax.ShapeDtypeStruct) else np.asarray(value)


def batch_of(x: Any, y: Any, mask: Any, input_shape: Any, num_steps: int) -> Batch:
    """Returns a batch, looking only at dtypes and shapes.

    Args:
      x: tree of inputs.
      y: tree of targets, parts of it wrapped in PerStep or PerExample; None if there are none.
      mask: of shape ``(batch,)`` or ``(T, batch)``, or None.
      input_shape: of the state.
      num_steps: the number of time steps of a sequence; a sequence with a mask may have fewer.

    Raises:
      TypeError, ValueError: the arguments do not fit each other or the model.
    """
    names, leaves, shapes = _inputs(x, input_shape)
    masked = mask is not None and jnp.ndim(mask) == 2
    moving = tuple(
        _validate.frames(name, leaf, shape, num_steps, masked)
        for name, leaf, shape in zip(names, leaves, shapes, strict=True)
    )
    sizes = [(name, leaf.shape[int(moves)]) for name, leaf, moves in zip(names, leaves, moving, strict=True)]
    size = _validate.one_size(sizes, "examples")
    lengths = [(name, leaf.shape[0]) for name, leaf, moves in zip(names, leaves, moving, strict=True) if moves]
    steps = _validate.one_size(lengths or [("mask", mask.shape[0] if masked else num_steps)], "time steps")
    if mask is not None:
        _validate.mask(mask, size, steps, num_steps)
        mask = jnp.broadcast_to(mask, (steps, size))
    y, moving_y = _targets(y, size, steps)
    return Batch(x, y, mask, steps, size, moving, moving_y)


def _inputs(x: Any, input_shape: Any) -> tuple[list[str], list[Any], tuple[tuple[int, ...], ...]]:
    if not isinstance(input_shape, InputShapes):
        return ["x"], [x], (tuple(input_shape),)
    found = jax.tree_util.tree_leaves_with_path(x)
    _validate.same_structure("x", jax.tree.structure(x), input_shape.structure)
    return [f"x/{leaf_name(path)}" for path, _ in found], [leaf for _, leaf in found], input_shape.shapes


def _targets(y: Any, size: int, steps: int) -> tuple[Any, tuple[bool, ...]]:
    """Returns the targets without their wrappers, and for each leaf whether it has a value per time step."""

    def wraps(node: Any) -> bool:
        return isinstance(node, PerStep | PerExample)

    moving: list[bool] = []
    parts = []
    flat, structure = jax.tree_util.tree_flatten_with_path(y, is_leaf=wraps)
    for path, node in flat:
        inner = node.value if wraps(node) else node
        for leaf in jax.tree.leaves(inner):
            name = f"y/{leaf_name(path)}" if path else "y"
            if wraps(node):
                moving.append(isinstance(node, PerStep))
                _validate.leading(name, leaf.shape, (steps, size) if moving[-1] else (size,))
            else:
                moving.append(_validate.targets(name, leaf, size, steps))
        parts.append(inner)
    return jax.tree.unflatten(structure, parts), tuple(moving)


def check_values(batch: Batch, counted_labels: np.ndarray | None, num_classes: int | None) -> None:
    """Refuses NumPy arrays with inputs that are not finite or labels outside the classes, except in padding.

    Args:
      batch: the batch.
      counted_labels: which labels count, of their shape, for losses that ignore some; None means all.
      num_classes: the number of classes; None where targets are not labels.
    """
    everything = np.ones((batch.num_steps, batch.size), bool)
    mask: Any = everything if batch.mask is None else np.asarray(batch.mask)
    x = jax.tree_util.tree_leaves_with_path(batch.x)
    for (path, leaf), moves in zip(x, batch.moving_x, strict=True):
        if isinstance(leaf, np.ndarray):
            name = f"x/{leaf_name(path)}" if path else "x"
            _validate.finite_values(name, leaf, mask if moves else mask.any(0), int(moves))
    if num_classes is not None and isinstance(batch.y, np.ndarray) and batch.has_labels:
        counts = mask if batch.per_step else mask.any(0)
        counts = counts if counted_labels is None else counts & counted_labels
        _validate.label_values(batch.y, counts, num_classes)


def keys_at(rngs: Any, t: int | jax.Array) -> dict[str, jax.Array] | None:
    """Returns the random keys of a time step in Linen's form: new ones at each step, except for the stream "sequence".

    Args:
      rngs: a key, from which any stream is drawn, or a dict of keys by stream; None means no keys.
      t: the time step.
    """
    if rngs is None:
        return None
    streams = dict(rngs) if isinstance(rngs, dict) else {"params": rngs}
    fixed = streams.pop(SEQUENCE, None)
    fixed = jax.random.fold_in(streams[min(streams)], jnp.uint32(2**32 - 1)) if fixed is None else fixed
    return {SEQUENCE: fixed, **{name: jax.random.fold_in(key, t) for name, key in streams.items()}}


def folded(rngs: Any, number: Any) -> Any:
    """Returns random keys for a batch, a device, or anything else that has a number."""
    return jax.tree.map(lambda key: jax.random.fold_in(key, number), rngs)
