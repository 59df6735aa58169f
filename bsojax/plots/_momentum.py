"""How close weights are to a flip: their momentum compared with the threshold."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bsojax import _validate
from bsojax.optim import BSOState, IntegerMomentum, TBSOState
from bsojax.plots._axes import BLUE, VERMILION, Axes, axes, finish
from bsojax.signs import is_packed, leaf_name, to_weights


def momentum(
    opt_state: Any,
    signs: Any,
    layer: str,
    threshold: float | Callable[[Any], Any],
    *,
    bins: int = 80,
    ax: Axes | None = None,
) -> Axes:
    """Draws a histogram of ``weight * momentum`` of a layer, and the threshold: weights to its right flip.

    Use it to see whether a threshold stops every flip, or none:
    ``plots.momentum(state.opt_state, state.signs, "conv_1/kernel", threshold)``. Momenta are shown as they are stored
    between updates, rounded where momentum_dtype is an integer. Weights right of the threshold are those that the last
    gradient flipped to the other side, or that rounding moved.

    Args:
      opt_state: an optimizer's state that contains one of bso or t_bso, at any depth.
      signs: the tree of trained signs, ``state.signs``, packed or not.
      layer: the name of a leaf of signs, such as "conv_1/kernel".
      threshold: as given to bso or t_bso: a number, or a schedule over the number of updates; 0 for calibrated. For
        t_bso it is multiplied by the root of the layer's second moment, which each time step has separately.
      bins: the number of bars.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes, with bars on a logarithmic axis and the threshold as a line, for t_bso one per time step.

    Raises:
      ValueError: opt_state contains no momentum, like that of counter, or there is no such layer.
    """
    state = _flip_state(opt_state)
    found = _by_name(state.momentum, lambda node: isinstance(node, IntegerMomentum))
    weights = _by_name(to_weights(signs), is_packed)
    _validate.known_leaf("layer", layer, found.keys() & weights.keys())
    rested = found[layer].to_float() if isinstance(found[layer], IntegerMomentum) else found[layer]
    aligned = np.asarray(weights[layer]) * np.asarray(rested, np.float32)
    gamma = float(threshold(state.count) if callable(threshold) else threshold)
    limits = np.unique(gamma * _scales(state, layer))

    ax = axes(ax)
    ax.hist(aligned.ravel(), bins=bins, color=BLUE, log=True)
    for place, limit in enumerate(limits):
        ax.axvline(limit, color=VERMILION, linewidth=1.2, label=None if place else "threshold")
    ax.legend(frameon=False, fontsize=9)
    share = float(np.mean(aligned > limits.min()))
    ax.set_title(f"{layer}: {share:.2%} of {aligned.size:,} weights beyond the threshold", fontsize=10)
    return finish(ax, "weight \u00d7 momentum", "weights")


def _flip_state(opt_state: Any) -> BSOState | TBSOState:
    def is_state(node: Any) -> bool:
        return isinstance(node, BSOState | TBSOState)

    states: list[BSOState | TBSOState] = list(filter(is_state, jax.tree.leaves(opt_state, is_leaf=is_state)))
    _validate.one_momentum("opt_state", len(states))
    return states[0]


def _by_name(tree: Any, is_leaf: Callable[[Any], bool]) -> dict[str, Any]:
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)}


def _scales(state: BSOState | TBSOState, layer: str) -> np.ndarray:
    """Returns the factors of a layer's threshold, for t_bso one per time step."""
    if isinstance(state, BSOState):
        return np.ones(1)
    second = np.asarray(_by_name(state.second_moment, lambda _: False)[layer])
    if state.second_moment_weight is not None:
        weight = np.asarray(state.second_moment_weight)
        second = second / np.where(weight > 0, weight, 1)
    return np.asarray(np.sqrt(second))
