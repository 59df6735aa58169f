"""Records as events for TensorBoard, if the user asks for them."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.running.progress import Progress

Write = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def writer(folder: Path, wanted: bool, start: Progress | None) -> Iterator[Write]:
    """Yields a function that writes a record's numbers, each against the count of updates, into FOLDER/tensorboard.

    Args:
      folder: the folder of the training.
      wanted: whether to write events; otherwise the function does nothing.
      start: where the training continues; events of what it will repeat are marked as void.
    """
    if not wanted:
        yield lambda record: None
        return
    check_installed()
    from tensorboardX import SummaryWriter

    done = start.records[-1]["updates"] if start is not None and start.records else 0
    purge = done + 1 if start is not None else None
    suffix = f".{time.time_ns()}"  # or a second writer of the same second would overwrite the first one's file
    with SummaryWriter(str(folder / "tensorboard"), purge_step=purge, filename_suffix=suffix) as events:

        def write(record: dict[str, Any]) -> None:
            for name, value in _numbers(record).items():
                if name != "updates" and math.isfinite(value):
                    events.add_scalar(name, value, record["updates"])
            events.flush()

        yield write


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """Returns the numbers of a record, including those of layers: "spike_rates/neuron_0"."""
    layers = {f"{name}/{layer}": n for name, by in record.items() if isinstance(by, dict) for layer, n in by.items()}
    return {name: value for name, value in record.items() if not isinstance(value, dict)} | layers


def check_installed() -> None:
    """Raises ImportError, with the cure, unless events can be written."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ImportError("--tensorboard: needs a package; pip install 'bsojax[tensorboard]'.") from error
