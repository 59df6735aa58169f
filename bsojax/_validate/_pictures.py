"""The contents of pictures."""

from collections.abc import Collection, Sequence
from typing import Any


def one_recording(recording: Any, is_one: bool, field: str) -> None:
    """Refuses anything but the recording of one layer, or one that lacks what is to be drawn."""
    if not is_one:
        names = f', such as recordings["{next(iter(recording))}"]' if isinstance(recording, dict) and recording else ""
        raise TypeError(f"recording: needs that of one layer{names}, not {type(recording).__name__}.")
    if getattr(recording, field) is None:
        raise ValueError(f"recording: the layer reports no {field}; choose another layer.")


def indices(name: str, chosen: Sequence[int], size: int) -> None:
    """Refuses indices beyond an axis, and negative ones, which would be drawn under the wrong name."""
    wrong = [index for index in chosen if not 0 <= index < size]
    if wrong:
        raise ValueError(f"{name}: there is no {wrong[0]}; choose from 0 .. {size - 1}.")


def some_records(keys: Sequence[str], count: int) -> None:
    """Refuses to draw nothing."""
    if not count:
        raise ValueError(
            f"records: none holds {' or '.join(map(repr, keys))} by layer; give the metrics of training steps in a "
            "list, or the lines of a run's metrics.jsonl."
        )


def known_leaf(name: str, leaf: str, known: Collection[str]) -> None:
    """Refuses the name of a leaf that a tree does not have."""
    if leaf not in known:
        raise ValueError(f"{name}: there is no {leaf!r}; choose one of {', '.join(sorted(known))}.")


def one_momentum(name: str, count: int) -> None:
    """Refuses optimizers that accumulate gradients in no momentum, or in several."""
    if count != 1:
        held = "no state" if not count else f"{count} states"
        raise ValueError(f"{name}: it holds {held} of bso or t_bso; give the part that holds one.")


def kernel_axes(name: str, count: int) -> None:
    """Refuses kernels that no flat picture can show."""
    if not 2 <= count <= 4:
        raise ValueError(f"{name}: needs the signs of a dense layer or of a convolution in 1 or 2 dimensions.")
