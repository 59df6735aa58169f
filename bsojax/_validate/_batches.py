"""Batches: inputs, targets, masks, and what models and losses return for them."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def frames(name: str, x: Any, shape: tuple[int, ...], num_steps: int, masked: bool, *, prefix: str = "") -> bool:
    """Returns whether an input is a (T, batch, ...) sequence rather than a static (batch, ...) frame.

    Refuses anything else: it would be broadcast, or its pixels mistaken for others. With a mask a sequence may be
    shorter than num_steps.
    """
    name = f"{prefix}{name}"
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if 0 in x.shape:
        raise ValueError(f"{name}: there is no example in an array of shape {x.shape}.")
    lead = x.shape[: len(x.shape) - len(shape)]
    fits = x.shape[len(lead) :] == tuple(shape) and len(lead) in (1, 2)
    if not fits or (len(lead) == 2 and lead[0] != num_steps and not (masked and lead[0] < num_steps)):
        each = "".join(f", {size}" for size in shape)
        shorter = " Sequences of fewer time steps need a mask, where there is an argument for one."
        cure = shorter if fits and not masked else ""
        raise ValueError(
            f"{name}: the model was initialised for examples of shape {tuple(shape)}, so {name} needs the shape "
            f"(batch{each}), or ({num_steps}, batch{each}) for a frame per time step; got {x.shape}.{cure}"
        )
    return len(lead) == 2


def one_size(sizes: Iterable[tuple[str, int]], what: str) -> int:
    """Returns the number of examples, or of time steps, of all inputs; refuses inputs that differ."""
    found = list(sizes)
    if len({size for _, size in found}) > 1:
        raise ValueError(f"x: its leaves have unequal numbers of {what}: {dict(found)}.")
    return found[0][1]


def targets(name: str, y: Any, size: int, num_steps: int) -> bool:
    """Returns whether targets are per time step, (T, batch, ...), rather than per example, (batch, ...)."""
    per_example, per_step = y.shape[:1] == (size,), y.shape[:2] == (num_steps, size)
    if per_example and per_step:
        ambiguous_targets(name, y.shape)
    if not (per_example or per_step):
        raise ValueError(
            f"{name}: x holds {size} examples, so y needs the shape ({size}, ...), or ({num_steps}, {size}, ...) for "
            f"a target per time step; got {y.shape}."
        )
    return bool(per_step)


def leading(name: str, shape: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses targets that do not begin with the axes that they should have."""
    if shape[: len(needed)] != needed:
        raise ValueError(f"{name}: needs the shape ({', '.join(map(str, needed))}, ...), got {shape}.")


def same_structure(name: str, found: Any, needed: Any) -> None:
    """Refuses a tree with a different structure."""
    if found != needed:
        raise ValueError(f"{name}: the model was initialised for a tree {needed}, not {found}.")


def ambiguous_targets(name: str, shape: tuple[int, ...]) -> None:
    """Refuses targets that could be read in two ways."""
    raise ValueError(
        f"{name}: there are as many examples as time steps, so targets of shape {shape} may be per example or per time "
        "step; say which: bsojax.PerExample(y) or bsojax.PerStep(y)."
    )


def labels(y: Any, *, prefix: str = "") -> None:
    """Refuses anything but class labels, one per example."""
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{prefix}y: needs integer class labels, not {y.dtype}.")
    if y.ndim != 1:
        raise ValueError(f"{prefix}y: needs one label per example, shape (batch,), got {y.shape}; is it one-hot?")


def label_values(y: np.ndarray, counted: np.ndarray, num_classes: Any, *, prefix: str = "") -> None:
    """Refuses labels outside the classes in NumPy arrays, and names the first of them."""
    wrong = np.argwhere(((y < 0) | (y >= num_classes)) & counted)
    if wrong.size:
        first = tuple(map(int, wrong[0]))
        raise ValueError(
            f"{prefix}y: {len(wrong)} labels are outside the classes 0 .. {num_classes - 1}, the first at index "
            f"{first[0] if len(first) == 1 else first} ({y[first]}); relabel them, give the model more classes, leave "
            "them out by bsojax.losses.ignoring, or, if they are numbers and not classes, convert them to floating."
        )


def finite_values(name: str, x: np.ndarray, counted: np.ndarray, batch_axis: int, *, prefix: str = "") -> None:
    """Refuses inputs that are not finite in NumPy arrays, and names the first example with any.

    ``counted`` is boolean with the leading axes of x up to the batch axis, and says which examples count.
    """
    if np.isfinite(x).all():
        return
    good = np.isfinite(x).all(axis=tuple(range(batch_axis + 1, x.ndim))) | ~counted
    bad = np.flatnonzero(~(good if batch_axis == 0 else good.all(0)))
    if bad.size:
        raise ValueError(
            f"{prefix}{name}: {bad.size} examples hold NaN or infinity, the first at index {bad[0]}; repair or drop "
            "them."
        )


def mask(value: Any, size: int, steps: int, num_steps: int) -> None:
    """Refuses a mask that is not boolean, fits neither examples nor time steps, is too long, or counts nothing."""
    if value.dtype != jnp.bool_:
        raise TypeError(f"mask: needs booleans, True where an example counts, not {value.dtype}.")
    if value.shape not in ((size,), (steps, size)) or steps > num_steps:
        steps = min(steps, num_steps)
        raise ValueError(
            f"mask: needs the shape ({size},) or ({steps}, {size}), got {value.shape}; time is the first axis, and "
            "bsojax.init is given one time step."
        )
    if isinstance(value, np.ndarray) and not value.any():
        raise ValueError("mask: it counts no example; leave such a batch out.")


def class_logits(value: Any, size: int) -> None:
    """Refuses anything but logits of shape (batch, classes) where targets are class labels."""
    if not isinstance(value, jax.Array) or value.ndim != 2 or value.shape[0] != size:
        raise ValueError(
            f"model: it must return logits of shape (batch, classes), here ({size}, ...), as y are class labels; got "
            f"{value}. Targets that are not classes must be floating."
        )


def outputs(value: Any, size: int) -> None:
    """Refuses outputs of a model that are not a tree of arrays with an entry for each example."""
    for leaf in jax.tree.leaves(value):
        if jnp.shape(leaf)[:1] != (size,) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"model: it must return floating arrays of shape (batch, ...), here ({size}, ...); got {leaf}."
            )


def loss_value(value: Any, size: int, differentiated: bool) -> None:
    """Refuses a loss that is neither a scalar nor a value for each example, or through which no gradient flows."""
    shape, flows = jnp.shape(value), jnp.issubdtype(jnp.result_type(value), jnp.floating)
    if not (flows or not differentiated) or (shape != () and shape[0] != size):
        raise TypeError(
            f"loss: must return a floating scalar, the mean over the batch, or a value per example, shape ({size}, "
            f"...); got {jnp.result_type(value)}{list(shape)}."
        )


def weighted_loss(name: str, value: Any) -> None:
    """Refuses a mean over the batch where some examples must be left out of it."""
    if jnp.ndim(value) == 0:
        raise ValueError(
            f"{name}: it returns a scalar, in which padding or ignored examples cannot be left out; return a value per "
            "example, shape (batch,)."
        )


def metric_names(names: Iterable[str]) -> None:
    """Refuses metrics whose names are taken."""
    if taken := {"loss", "flips", "spikes", "skipped", "neurons"} & set(names):
        raise ValueError(f"metrics: {sorted(taken)} are names that a step itself returns; choose others.")


def metric_value(name: str, value: Any, size: int) -> None:
    """Refuses a metric that is neither a scalar nor a value for each example."""
    if jnp.shape(value) != () and jnp.shape(value)[0] != size:
        raise ValueError(
            f"metrics: '{name}' must return a scalar or an array of shape ({size}, ...), a value per example; got "
            f"{jnp.shape(value)}."
        )


def soft_labels(logits: Any, y: Any) -> None:
    """Refuses targets for classes that are neither labels nor shares of classes."""
    if not jnp.issubdtype(y.dtype, jnp.floating) or y.shape != logits.shape:
        raise TypeError(
            f"y: needs integer class labels of shape {logits.shape[:1]}, or floating shares of the classes of shape "
            f"{logits.shape}, not {y.dtype}{list(y.shape)}; is it one-hot? Other targets need another loss."
        )


def like_logits(logits: Any, y: Any) -> None:
    """Refuses targets whose shape differs from the logits': they would be broadcast."""
    if y.shape != logits.shape:
        raise ValueError(f"y: this loss needs targets of the logits' shape {logits.shape}, got {y.shape}.")


def labels_to_ignore(y: Any) -> None:
    """Refuses to look for an ignored label in targets that are not labels."""
    if not jnp.issubdtype(getattr(y, "dtype", jnp.float32), jnp.integer):
        raise TypeError("y: losses.ignoring needs integer class labels; leave examples out by a mask.")


def sown_losses(names: Iterable[str], taken: bool) -> None:
    """Refuses losses that a model sows but nothing adds."""
    if names and not taken:
        raise ValueError(
            f"loss: the model sows losses {sorted(names)}, which this loss leaves out; use "
            "bsojax.losses.with_sown(loss), or give the loss an argument named sown."
        )


def train_flag(has_flag: bool, has_statistics: bool) -> None:
    """Refuses a model whose norms would not know that it is in training."""
    if has_statistics and not has_flag:
        raise ValueError(
            "model: it has running statistics, and its __call__ takes no flag for training, so they would never "
            "be updated; give it an argument train (or training, is_training, deterministic, use_running_average)."
        )


def donated(error: Exception) -> Exception:
    """Returns the error to raise where arrays have been deleted."""
    return ValueError(
        f"state: it was given to a training step before, which took over its memory ({error}); keep the state that a "
        "step returns, or give the step a copy: jax.tree.map(jnp.copy, state)."
    )
