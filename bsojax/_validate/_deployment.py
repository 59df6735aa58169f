"""Deployment: what an integer network cannot express, and its inputs."""

import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from bsojax._validate._trees import leaf_name


def not_deployable(owner: str, why: str) -> NoReturn:
    """Refuses a layer of a model."""
    raise ValueError(f"model: {owner} cannot be deployed: {why}.")


_CURES = {
    ("dot_general", "conv_general_dilated", "cond", "custom_vjp_call"): "use a layer of bsojax instead, such as "
    "Dense, Conv, BinaryDense or BinaryConv themselves",
    ("reduce_sum", "reduce_max", "reduce_window_max", "reduce_window_sum", "reduce_window", "argmax"): "pool by "
    "bsojax.avg_pool, global_avg_pool or max_pool, and normalise by BatchNorm or Affine",
    ("concatenate",): "instead of one layer that reads parts joined, add the results of one layer for each part",
    ("slice", "dynamic_slice", "gather", "split"): "slice the inputs before the model, or read all",
    ("reshape", "squeeze", "transpose", "broadcast_in_dim", "rev", "pad"): "the one change of shape is bsojax.flatten",
    ("convert_element_type",): "numbers stay floating",
}
"""What to do about operations between layers."""


def not_read(reader: str, maker: str, last: str) -> NoReturn:
    """Refuses a value that a layer reads but no layer produced."""
    known = {
        "a constant": "it reads nothing that depends on the input; leave it out, or give it a bias",
        "the time step": "it reads what the model makes of time_step; give the network a sequence of frames, or norms "
        "with num_steps",
        "the state of neurons": "it reads state, of neurons or the model's own, such as a membrane; read spikes alone",
        "the inside of a layer": f"it reads what is inside '{last}', such as a membrane; read spikes alone",
    }
    operation = maker.strip("'")
    cure = next((cure for names, cure in _CURES.items() if operation in names), "put neurons in its place")
    between = (
        f"it reads what '{operation}' makes of '{last}', and between layers only sums, and products with constants, "
        f"one per channel, are known; {cure}"
    )
    not_deployable(reader, known.get(maker, between))


def one_output(number: int) -> None:
    """Refuses a model that returns more than one array."""
    if number != 1:
        not_deployable("what it returns", f"these are {number} arrays; return one, the logits, in evaluation")


def not_in_nir(owner: str, why: str) -> NoReturn:
    """Refuses a layer for which the Neuromorphic Intermediate Representation has no nodes."""
    raise ValueError(f"to_nir: {owner} cannot be expressed in NIR: {why}.")


def draws_nothing(why: str) -> NoReturn:
    """Refuses a model that draws random numbers in evaluation."""
    not_deployable("what it draws at random", f"{why} in evaluation too; give dropout deterministic=not train")


def too_wide(name: str, most: int, width: int) -> NoReturn:
    """Refuses a map whose numbers do not fit at any precision."""
    not_deployable(
        f"'{name}'",
        f"its numbers may reach {most}, which {width} bits do not hold; narrow input_min and input_max, or scale it "
        "down between layers",
    )


def no_threshold(name: str, width: int) -> NoReturn:
    """Refuses membranes whose largest numbers leave no bits for the threshold."""
    why = (
        f"membranes of {width} bits hold its largest currents only where its threshold is 0; give more membrane_bits, "
        "32 at most, or scale the currents down"
    )
    not_deployable(f"'{name}'", why)


def finite_leaves(name: str, tree: Any) -> None:
    """Refuses variables that are not finite, and names the first."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.all(np.isfinite(leaf.astype(np.float32))):
            raise ValueError(f"{name}: leaf '{leaf_name(path)}' is not finite and cannot be made whole; train again.")


def positive_number(name: str, value: Any) -> float:
    """Returns a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: needs a number, got {value!r}.")
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: needs a finite number > 0, got {value}.")
    return float(value)


def all_or_none(owner: str, given: Mapping[str, Any]) -> bool:
    """Whether arguments that belong together are given."""
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(f"{missing[0]}: {owner} takes {', '.join(given)} together, or none of them.")
    return not missing


def whole_between(name: str, value: Any, low: int, high: int) -> int:
    """Returns an int in a range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: needs an int, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name}: must be in [{low}, {high}], got {value}.")
    return int(value)


def input_range(low: Any, high: Any) -> tuple[int, int]:
    """Returns the smallest and the largest whole input."""
    low, high = whole_between("input_min", low, -(2**15), 0), whole_between("input_max", high, 0, 2**16 - 1)
    if low == high:
        raise ValueError("input_max: inputs of 0 alone say nothing; give the largest whole input, such as 255.")
    return low, high


def whole_inputs(x: Any, shape: tuple[int, ...], num_steps: int | None) -> np.ndarray:
    """Returns the inputs of an integer network, after checking their shape and dtype."""
    whole = np.asarray(x)
    if not np.issubdtype(whole.dtype, np.integer):
        raise TypeError(
            f"x: needs whole numbers, got {whole.dtype}; multiply by input_scale and round, np.rint(x * scale)."
        )
    lead = ("batch",) if num_steps is None else (f"1 to {num_steps}", "batch")
    fits = whole.ndim == len(lead) + len(shape) and whole.shape[len(lead) :] == shape
    if not fits or (num_steps is not None and not 1 <= whole.shape[0] <= num_steps):
        wanted = ", ".join(map(str, (*lead, *shape)))
        raise ValueError(f"x: needs shape ({wanted}), got {whole.shape}.")
    if whole.shape[len(lead) - 1] == 0:
        raise ValueError("x: has no examples.")
    return whole


def inputs_within(x: np.ndarray, low: int, high: int) -> None:
    """Refuses inputs outside the range for which the bounds of a network are proven."""
    if x.min() < low or x.max() > high:
        raise ValueError(
            f"x: holds numbers from {x.min()} to {x.max()}, and the network is made for {low} to {high} "
            "(input_min and input_max)."
        )


def outcome(logits: np.ndarray, spikes: Mapping[str, np.ndarray], steps: int, size: int) -> None:
    """Refuses results of other inputs than those that they are compared on."""
    shapes = [logits.shape[:1], *(found.shape[:2] for found in spikes.values())]
    if shapes != [(size,), *[(steps, size)] * len(spikes)]:
        raise ValueError(
            f"outcome: it must be what run or run_c returned for the same x, of {size} examples and {steps} time "
            f"steps; its arrays begin with the shapes {sorted(set(shapes), key=len)}."
        )


def found_compiler(name: str, path: str | None) -> None:
    """Refuses a C compiler that this machine does not have."""
    if path is None:
        raise FileNotFoundError(
            f"compiler: there is no '{name}' on this machine; install one, such as gcc, or name another."
        )


def c_name(name: Any) -> str:
    """Returns a name that is valid in C as a prefix of others."""
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None:
        raise ValueError(f"name: needs a C identifier, such as 'net', got {name!r}.")
    return name
