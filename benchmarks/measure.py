"""How a benchmark measures: callables timed in turns on a shared machine, compiled bytes, resident memory.

The results go into a file of benchmarks/results, with the command, the versions and the machine at its head.

Nothing here needs JAX to be imported before it is used: the peers' processes measure with it too.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.environment import environment, machine
from experiments.spread import Spread

RESULTS = Path("benchmarks") / "results"

MIN_ROUNDS = 5
"""Fewer rounds give no useful quartiles."""

QUIET = 0.25
"""Cores that other processes may keep busy before a measurement counts as disturbed."""

_STATUS = Path("/proc/self/status")
_STAT = Path("/proc/stat")
_CLEAR = Path("/proc/self/clear_refs")


def block_until_ready(result: Any) -> Any:
    """Returns a tree of JAX arrays once they are computed."""
    import jax  # here: a process that measures PyTorch must not load it

    return jax.block_until_ready(result)


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 9,
    warmup: int = 2,
    wait: Callable[[Any], Any] = block_until_ready,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Returns the seconds of each callable in each round, where a round runs each of them once.

    Use it to compare ways of doing the same on a shared machine: what disturbs a round disturbs all of its calls
    alike, so compare within a round (see ``ratios``). The order rotates by one from round to round, so that none
    profits from always following another.

    Args:
      calls: by name; each does its work once and returns its result.
      rounds: at least 5.
      warmup: how often each is called first, which compiles it.
      wait: is given each result before the clock is read; returns when it is computed.
      clock: seconds.

    Raises:
      ValueError: there are too few rounds, warmup is negative, or nothing to call.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"rounds: at least {MIN_ROUNDS}, for a median and its spread, got {rounds}.")
    if warmup < 0:
        raise ValueError(f"warmup: needs a number >= 0, got {warmup}.")
    if not calls:
        raise ValueError("calls: needs at least one callable.")
    for call in calls.values():
        for _ in range(warmup):
            wait(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        for name in rotated(names, turn):
            start = clock()
            wait(calls[name]())
            seconds[name].append(clock() - start)
    return seconds


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Returns the names in the order of a round: each comes first in its turn."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def ratios(values: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Spread]:
    """Returns how each compares with the baseline: the spread of ``value / baseline`` over the rounds.

    The baseline's own is 1. A ratio is formed within a round, before any median: a slow spell then touches both sides.

    Args:
      values: by name, one value > 0 per round, as interleave returns.
      baseline: one of the names.

    Raises:
      KeyError: the baseline is not one of the names.
      ValueError: a name has another number of rounds, or a baseline's value is not > 0.
    """
    if baseline not in values:
        raise KeyError(f"baseline: '{baseline}' is none of {', '.join(values)}.")
    reference = values[baseline]
    if not all(value > 0 for value in reference):
        raise ValueError(f"baseline: the values of '{baseline}' must be > 0.")
    for name, own in values.items():
        if len(own) != len(reference):
            raise ValueError(f"values: '{name}' has {len(own)} rounds, '{baseline}' has {len(reference)}.")
    return {
        name: Spread.of(value / unit for value, unit in zip(own, reference, strict=True))
        for name, own in values.items()
    }


class CompiledBytes(NamedTuple):
    """The memory of a compiled step while it runs, as the compiler plans it: exact and repeatable.

    Attributes:
      arguments: bytes of its inputs; donated ones hold its outputs too.
      temporaries: bytes of everything else that exists during the step.
    """

    arguments: int
    temporaries: int

    @property
    def total(self) -> int:
        """Bytes of arguments and temporaries."""
        return self.arguments + self.temporaries


def compiled_bytes(step: Any, *args: Any) -> CompiledBytes:
    """Returns the bytes of a jitted function for given arguments; it is compiled, not run.

    Args:
      step: a jitted function, or anything else that has ``lower``, such as ``bsojax.make_train_step``'s.
      *args: arrays, or shapes as ``jax.ShapeDtypeStruct``.

    Raises:
      TypeError: step has no ``lower``.
    """
    if not hasattr(step, "lower"):
        raise TypeError("step: needs a jitted function, which has `lower`; wrap it in jax.jit.")
    return planned_bytes(step.lower(*args).compile())


def planned_bytes(program: Any) -> CompiledBytes:
    """Returns the bytes of a compiled program."""
    analysis = program.memory_analysis()
    return CompiledBytes(analysis.argument_size_in_bytes, analysis.temp_size_in_bytes)


class MemoryMark(NamedTuple):
    """What a process held at one moment, as a reference.

    Attributes:
      resident: bytes in memory then.
    """

    resident: int

    def peak_above(self) -> int:
        """Returns the most bytes that the process has held since, above the mark."""
        return status_bytes("VmHWM") - self.resident


def mark_memory() -> MemoryMark:
    """Marks the resident memory of this process and starts its peak again from there.

    Use it after all imports, so that loaded libraries are not counted.

    Raises:
      OSError: the system does not report it: needs Linux, and the right to write to /proc/self/clear_refs if the
        peak so far is above what is resident now.
    """
    resident = status_bytes("VmRSS")
    try:
        _CLEAR.write_text("5")  # Linux: resets the peak
    except OSError:
        # The old peak would be taken for one of what follows, by more than the rounding of the kernel's counters.
        if status_bytes("VmHWM") > resident + 2**20:
            raise
    return MemoryMark(resident)


def status_bytes(field: str) -> int:
    """Returns a size that the kernel keeps of this process: "VmRSS" (resident now) or "VmHWM" (its peak).

    Raises:
      OSError: the system has no /proc, or it has no such field.
    """
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"field: {_STATUS} has no '{field}'.")


class LoadMark(NamedTuple):
    """The clocks of the machine and of this process at one moment, as a reference.

    Attributes:
      wall, machine, own: seconds: of the wall clock, of all cores' work, of this process's work on them.
    """

    wall: float
    machine: float
    own: float

    def others(self) -> float:
        """Returns how many cores all other processes kept busy since, on average; 0 means an idle machine."""
        now = mark_load()
        elapsed = max(now.wall - self.wall, 1e-9)
        return max(0.0, (now.machine - self.machine) - (now.own - self.own)) / elapsed


def wait_until_idle(
    patience: float, cores: float = QUIET, *, sample: float = 1.0, sleep: Callable[[float], Any] = time.sleep
) -> float:
    """Waits until other processes keep fewer than this many cores busy; returns how many they kept at the end.

    Args:
      patience: seconds after which it returns anyway.
      cores: the limit.
      sample: seconds of one observation.
      sleep: waits for a number of seconds.

    Raises:
      OSError: the system does not report it: this needs Linux.
    """
    start = time.perf_counter()
    while True:
        mark = mark_load()
        sleep(sample)
        busy = mark.others()
        if busy < cores or time.perf_counter() - start >= patience:
            return busy


def mark_load() -> LoadMark:
    """Marks the machine's load, to say afterwards how disturbed a measurement was.

    Raises:
      OSError: the system does not report it: this needs Linux.
    """
    user, nice, system, _idle, _waiting, irq, softirq, *_ = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:])
    machine = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return LoadMark(time.perf_counter(), machine, time.process_time())


def save(path: Path, result: Any, **head: Any) -> None:
    """Writes what was measured, as JSON values, and what it depends on.

    Args:
      path: the file, whose folder is made.
      result: what was measured.
      **head: entries of the head that replace those of ``environment``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**environment(), "device": machine(), **head, "result": result}, indent=1) + "\n")


def ratio_text(found: Mapping[str, float]) -> str:
    """Returns the median of a spread of ratios and its extremes, as tables have them."""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def load_text(found: Mapping[str, Any]) -> str:
    """Returns the sentence on how disturbed a measurement was."""
    return f"Other processes kept {found['cores busy with other work']:g} cores busy meanwhile."
