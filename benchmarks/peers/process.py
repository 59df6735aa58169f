"""A contender's process: it marks its memory after its imports, builds, warms up, times, and prints its record."""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.measure import mark_load, mark_memory
from experiments.environment import versions

WARMUP = 2

Build = Callable[[int], Callable[[], Any]]
"""Makes, for a number of time steps, a function that trains on the batch once and returns the loss."""


def main(variants: Mapping[str, Build], packages: Iterable[str]) -> None:
    """Measures the variant that the command line names, ``VARIANT NUM_STEPS STEPS``, and prints the record.

    Call it last in a contender's script, after all of its imports.

    Args:
      variants: what the script can train, by name.
      packages: the distributions whose versions decide the result.
    """
    name, num_steps, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    record = measure(variants[name], num_steps, steps)
    print(json.dumps(record | {"versions": versions(packages)}))


def measure(build: Build, num_steps: int, steps: int) -> dict[str, Any]:
    """Returns the seconds of each timed step, the losses around them, and resident memory above the mark, in MiB.

    "peak_mib" is the most since the mark, with building, compiling and warming up; "steady_mib" the most while the
    timed steps run, once the allocator has returned what building left behind. "others" is how many cores other
    processes kept busy meanwhile: it should be near 0.

    Args:
      build: see Build; its step's loss is fetched as a float, which waits for it.
      num_steps: T.
      steps: how many steps are timed.
    """
    mark = mark_memory()
    step = build(num_steps)
    losses = [float(step()) for _ in range(WARMUP)]
    building = mark.peak_above()
    _hand_back()
    running = mark_memory()
    seconds = []
    load = mark_load()
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(float(step()))
        seconds.append(time.perf_counter() - start)
    others = load.others()
    steady = running.peak_above() + running.resident - mark.resident
    return {
        "seconds": seconds,
        "losses": [losses[0], losses[-1]],
        "peak_mib": max(building, steady) / 2**20,
        "steady_mib": steady / 2**20,
        "others": others,
    }


def _hand_back() -> None:
    """Returns freed memory to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
