"""Running the plan: a process a step, none longer than it may be, and a note of how each ended."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from experiments.gpu_plan.plan import Step
from experiments.running.files import write_json

PATIENCE, SLACK = 1.4, 30.0
"""A step may take so many times what is expected, and so many seconds more, before it is asked to stop."""

SAVING = 30.0
"""Seconds that a process has to save its work, before it is killed."""


def run(plan: Sequence[Step], seconds: float, output: Path) -> list[str]:
    """Runs what is not done yet; returns the names of the steps that failed. One that fails leaves the others alone.

    Args:
      plan: the steps.
      seconds: after so long no step begins, and the last one is asked to stop.
      output: the folder of the results; steps.json there says how each start of a step ended.
    """
    end, path = time.monotonic() + seconds, output / "steps.json"
    notes = json.loads(path.read_text()) if path.exists() else []
    failed = []
    for step in plan:
        limit = min(end - time.monotonic(), PATIENCE * step.seconds + SLACK)
        if step.done() or limit <= 0:
            continue
        print(f"{step.name}: {' '.join(step.command)}", flush=True)
        start = time.monotonic()
        status = ended(step.process, limit)
        notes.append({"step": step.name, "seconds": round(time.monotonic() - start, 1), "status": status})
        write_json(path, notes)
        if status:
            failed.append(step.name)
            print(f"{step.name}: exit status {status}", flush=True)
    return failed


def ended(command: Sequence[str], seconds: float) -> int:
    """Runs a process, which is asked to stop after so many seconds, and when this one is; returns its exit status."""
    with stopping(), subprocess.Popen(command) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return _stopped(process)
        except BaseException:
            _stopped(process)
            raise


def _stopped(process: subprocess.Popen) -> int:
    process.terminate()
    try:
        return process.wait(SAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Makes SIGTERM end this process as an exception does, so that the one that it waits for ends too."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
