"""Runs an integer network in NumPy: the reference that every other form of it must match bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bsojax.deploy import _bounds
from bsojax.deploy._graph import Add, AnyPool, Current, Flatten, Graph, Input, Neurons, Pair, SumPool, Synapse, Window


def run(graph: Graph, x: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Returns logits and spikes of a batch.

    Args:
      graph: a graph of integers.
      x: whole numbers of shape ``(batch, height, width, channels)``, or ``(T, batch, ...)`` for a sequence of at most
        num_steps frames.

    Returns:
      Logits, int64 of shape ``(batch, classes)``; by the place of each node of neurons its spikes, boolean of shape
      ``(num_steps, batch, height, width, channels)``.
    """
    membranes: dict[int, np.ndarray] = {}
    spikes: dict[int, list[np.ndarray]] = {}
    logits: Any = 0
    for t in range(len(x) if graph.is_sequence else graph.num_steps):
        maps: list[np.ndarray] = []
        for place, node in enumerate(graph.nodes):
            if isinstance(node, Input):
                made = (x[t] if graph.is_sequence else x).astype(np.int64)
            elif isinstance(node, Neurons):
                made, membranes[place] = fire(node, membranes.get(place, np.zeros((), np.int64)), maps[node.source])
                spikes.setdefault(place, []).append(made.astype(np.bool_))
            elif isinstance(node, Current):
                made = scaled(node, maps[node.source], t)
            elif isinstance(node, Add):
                made = maps[node.source] + maps[node.other]
            else:
                made = RULES[type(node)](node, maps[node.source])
            maps.append(made)
        logits = logits + maps[-1]
    return logits.reshape(len(logits), -1), {place: np.stack(maps) for place, maps in spikes.items()}


def fire(neurons: Neurons, membrane: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns spikes, 0 or 1, and the membrane after the reset."""
    threshold = int(neurons.threshold)
    charged = ((membrane * int(neurons.decay)) >> neurons.decay_bits) + current
    fired = charged >= threshold
    after = np.where(fired, 0 if neurons.hard else charged - threshold, charged)
    return fired.astype(np.int64), after


def scaled(current: Current[Any], sums: np.ndarray, t: int) -> np.ndarray:
    """Returns the currents computed from sums at a time step."""
    gain, shift = (given[t % len(given)].astype(np.int64) for given in (current.scale.gain, current.scale.shift))
    return _bounds.apply(gain, shift, current.scale.before, current.scale.after, sums)


def sum_pool(pool: SumPool, image: np.ndarray) -> np.ndarray:
    """Returns the sums of windows."""
    if pool.repeats_edge:
        odd = [
            (0, out * side - size) for out, side, size in zip(pool.shape, pool.window, image.shape[1:3], strict=False)
        ]
        image = np.pad(image, ((0, 0), *odd, (0, 0)), mode="edge")
    sums: np.ndarray = _tiles(image, pool.window).sum((2, 4))
    return sums


def any_pool(pool: AnyPool, image: np.ndarray) -> np.ndarray:
    """Returns the largest of each window."""
    largest: np.ndarray = _tiles(image, pool.window).max((2, 4))
    return largest


def flatten(node: Flatten, image: np.ndarray) -> np.ndarray:
    """Returns an image as a vector."""
    return image.reshape(len(image), 1, 1, -1)


def synapse(node: Synapse, image: np.ndarray) -> np.ndarray:
    """Returns the sums of weighted inputs."""
    kernel = np.where(node.kernel, 1, -1) if node.is_binary else node.kernel.astype(np.int64)
    # Products of float64 take a fraction of the time of integer products, and are exact where sums are small enough.
    most = int(np.max(np.abs(image), initial=0)) * int(np.max(np.abs(kernel).sum((0, 1, 2))))
    dtype = np.float64 if most < 2**53 else np.int64
    patches = windows(image, kernel.shape[:2], node.window, node.shape[:2])
    channels, out = kernel.shape[2], kernel.shape[-1] // node.groups
    groups = [
        patches[..., group * channels : (group + 1) * channels].reshape(*patches.shape[:3], -1).astype(dtype)
        @ kernel[..., group * out : (group + 1) * out].reshape(-1, out).astype(dtype)
        for group in range(node.groups)
    ]
    return np.concatenate(groups, -1).astype(np.int64)


def windows(image: np.ndarray, size: Pair, window: Window, shape: Pair) -> np.ndarray:
    """Returns the patch of each pixel: ``(batch, *shape, *size, channels)``; 0 outside the image."""
    for axis in (0, 1):
        first = np.arange(shape[axis]) * window.strides[axis] - window.before[axis]
        rows = first[:, None] + np.arange(size[axis]) * window.dilation[axis]
        inside = (rows >= 0) & (rows < image.shape[1 + 2 * axis])
        image = np.take(image, np.where(inside, rows, 0), 1 + 2 * axis)
        image = image * inside.reshape((1,) * (1 + 2 * axis) + inside.shape + (1,) * (image.ndim - 3 - 2 * axis))
    return image.transpose(0, 1, 3, 2, 4, 5)


def _tiles(image: np.ndarray, window: Pair) -> np.ndarray:
    batch, high, wide, channels = image.shape
    rows, columns = high // window[0], wide // window[1]
    kept = image[:, : rows * window[0], : columns * window[1]]
    return kept.reshape(batch, rows, window[0], columns, window[1], channels)


RULES: dict[Any, Callable[[Any, np.ndarray], np.ndarray]] = {
    SumPool: sum_pool,
    AnyPool: any_pool,
    Flatten: flatten,
    Synapse: synapse,
}
"""By kind of node, for those that do the same at each time step."""
