"""What layers did over a run: their spike rates, and how often their signs flipped."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bsojax import _validate
from bsojax.plots._axes import Axes, axes, by_depth, finish, name_lines, whole_numbers
from bsojax.signs import leaf_name, unpack_signs

Record = Mapping[str, Any]


def rates(records: Iterable[Record], *, ax: Axes | None = None) -> Axes:
    """Draws the spike rate of each layer of neurons over a run.

    Use it to see layers fall silent or saturate.

    Args:
      records: the metrics of training steps, ``[metrics, ...]``, whose "spikes" are rates by layer; or the lines of a
        run's metrics.jsonl, whose "spike_rates" are. Records without these are left out.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes: one line per layer, against the records' "epoch" where they have one, otherwise against their number.

    Raises:
      ValueError: no record contains rates by layer.
    """
    ax, kept = axes(ax, 7.5), _with(records, ("spike_rates", "spikes"))
    _draw(ax, kept, {name: 1 for _, values in kept for name in values})
    ax.set_ylim(0, None)
    return finish(ax, _x(kept), "spikes / neuron / time step")


def flips(records: Iterable[Record], *, signs: Any = None, ax: Axes | None = None) -> Axes:
    """Draws how often the signs of each layer flip over a run, on a logarithmic axis; records without flips are gaps.

    Use it to see whether layers still learn, and whether one flips back and forth.

    Args:
      records: the metrics of training steps, ``[metrics, ...]``, whose "flips" are counts by sign leaf; or the lines of
        a run's metrics.jsonl, whose "flip_ratios" are flips per weight and update. Records without these are left out.
      signs: the tree of signs, ``state.signs``: counts, but not ratios, are divided by the number of weights of their
        leaf.
      ax: the axes to draw on; None means those of a new figure.

    Returns:
      The axes: one line per layer, against the records' "epoch" where they have one, otherwise against their number.

    Raises:
      ValueError: no record contains flips by layer, or signs lacks one of their leaves.
    """
    ax, kept = axes(ax, 7.5), _with(records, ("flip_ratios", "flips"))
    names = {name for _, values in kept for name in values}
    counts = any("flip_ratios" not in record for record, _ in kept)
    sizes = dict.fromkeys(names, 1)
    if counts and signs is not None:
        sizes = _sizes(signs)
        _validate.known_layers("signs", names - sizes.keys())
    _draw(ax, kept, {name: sizes[name] for name in names}, gaps=True)
    ax.set_yscale("log")
    unit = ("flips / batch" if signs is None else "flips / weight / batch") if counts else "flips / weight / update"
    return finish(ax, _x(kept), unit)


def _with(records: Iterable[Record], keys: Sequence[str]) -> list[tuple[Record, Record]]:
    """Returns the records that hold values by layer under one of the keys, each with these values."""
    found = (
        (record, next((record[key] for key in keys if isinstance(record.get(key), Mapping)), None))
        for record in records
    )
    kept = [(record, values) for record, values in found if values is not None]
    _validate.some_records(keys, len(kept))
    return kept


def _draw(ax: Axes, kept: list[tuple[Record, Record]], sizes: Mapping[str, int], gaps: bool = False) -> None:
    names = sorted(sizes, key=_in_order)
    x = [record.get("epoch", number) for number, (record, _) in enumerate(kept)]
    for name, color in zip(names, by_depth(len(names)), strict=True):
        y = np.array([float(values.get(name, np.nan)) / sizes[name] for _, values in kept])
        if gaps:
            y[y == 0] = np.nan
        ax.plot(
            x, y, color=color, label=name.removesuffix("/kernel"), marker="o" if len(x) < 20 else None, markersize=3
        )
    name_lines(ax)
    whole_numbers(ax)


def _x(kept: list[tuple[Record, Record]]) -> str:
    return "epoch" if all("epoch" in record for record, _ in kept) else "batch"


def _sizes(signs: Any) -> dict[str, int]:
    return {leaf_name(path): leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(unpack_signs(signs))}


def _in_order(name: str) -> list[Any]:
    """A sort key that puts conv_10 after conv_2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
