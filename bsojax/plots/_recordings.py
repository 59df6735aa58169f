"""What a layer of neurons did for an example: its spikes, and the membranes of some of its neurons."""

from collections.abc import Sequence

import numpy as np

from bsojax import _validate
from bsojax.online import Recording
from bsojax.plots._axes import DISTINCT, GREY, Axes, axes, finish, name_lines, whole_numbers

_ROWS = 256
"""The most rows of a raster; where there are more neurons, a row stands for several."""

_SHOWN = 4
"""The number of neurons whose membranes are drawn by default."""


def raster(recording: Recording, *, example: int = 0, ax: Axes | None = None) -> Axes:
    """Draws when each neuron of a layer spiked: time steps from left to right, one row per neuron, spikes black.

    Use it to see whether a layer is silent, always on, or bursting: ``plots.raster(recordings["neuron_0"])``. In layers
    of more than 256 neurons a row stands for several, and is darker the more of them spiked.

    Args:
      recording: that of one layer, from the result of ``bsojax.record``.
      example: which example of the batch.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes.

    Raises:
      TypeError: recording is not the recording of one layer.
      ValueError: the layer does not spike, or there is no such example.
    """
    spikes = _of_example(recording, "spikes", example)
    steps, count = spikes.shape
    group = -(-count // _ROWS)
    first = np.arange(0, count, group)
    share = np.add.reduceat(spikes, first, axis=1).T / np.diff(first, append=count)[:, None]
    ax = axes(ax)
    extent = (-0.5, steps - 0.5, -0.5, len(share) * group - 0.5)
    ax.imshow(
        share, cmap="Greys", vmin=0, vmax=1, aspect="auto", origin="lower", extent=extent, interpolation="nearest"
    )
    ax.set_ylim(-0.5, count - 0.5)
    ax.set_title(f"{int(spikes.sum()):,} spikes, {spikes.mean():.3f} a neuron and time step", fontsize=10)
    finish(ax, "time step", "neuron").grid(visible=False)
    whole_numbers(ax)
    return ax


def membrane(
    recording: Recording,
    *,
    neurons: int | Sequence[int] | None = None,
    example: int = 0,
    threshold: float | None = 1.0,
    ax: Axes | None = None,
) -> Axes:
    """Draws the membranes of some neurons over time, the threshold as a dashed line, and a dot at each spike.

    Use it to see how far neurons stay from the threshold. Membranes are shown before the reset, so that a spike lies
    above the threshold.

    Args:
      recording: that of one layer, from the result of ``bsojax.record``.
      neurons: which ones, by their place in the raveled layer; None means the four whose spikes vary most over time,
        with ties decided by how much their membranes vary.
      example: which example of the batch.
      threshold: the layer's ``v_threshold``; None draws no line, and there is none where the layer does not spike.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes.

    Raises:
      TypeError: recording is not the recording of one layer.
      ValueError: the layer reports no membranes, or there is no such example or neuron.
    """
    membranes = _of_example(recording, "membranes", example)
    chosen = _lively(recording, membranes, example) if neurons is None else np.atleast_1d(neurons).tolist()
    _validate.indices("neurons", chosen, membranes.shape[1])
    ax = axes(ax)
    if threshold is not None and recording.spikes is not None:
        ax.axhline(threshold, color=GREY, linestyle="--", label="threshold")
    for place, neuron in enumerate(chosen):
        color = DISTINCT[place % len(DISTINCT)]
        ax.plot(membranes[:, neuron], color=color, label=f"neuron {neuron}")
        if recording.spikes is not None:
            times = np.flatnonzero(_of_example(recording, "spikes", example)[:, neuron])
            ax.plot(times, membranes[times, neuron], "o", color=color, markersize=5)
    name_lines(ax)
    whole_numbers(ax)
    return finish(ax, "time step", "membrane, before reset")


def _of_example(recording: Recording, field: str, example: int) -> np.ndarray:
    """Returns what a layer's neurons did for an example, of shape ``(num_steps, neurons)``."""
    _validate.one_recording(recording, isinstance(recording, Recording), field)
    values = np.asarray(getattr(recording, field), np.float32)
    _validate.indices("example", [example], values.shape[1])
    return values[:, example].reshape(len(values), -1)


def _lively(recording: Recording, membranes: np.ndarray, example: int) -> list[int]:
    """Returns the neurons that are drawn by default."""
    varies = np.zeros(membranes.shape[1])
    if recording.spikes is not None:
        varies = _of_example(recording, "spikes", example).var(0)
    order = np.lexsort((-np.ptp(membranes, axis=0), -varies))
    return [int(neuron) for neuron in np.sort(order[:_SHOWN])]
