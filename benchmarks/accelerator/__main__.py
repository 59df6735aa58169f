"""Measures VGG-11 on an accelerator: ``python -m benchmarks.accelerator``, some minutes on a GPU.

Each job runs in a process of its own, and the file is written after each: what is in it is not measured again. Absolute
times are those of the device that the file names. ``--batches 2 --image 8`` tries it on a CPU.
"""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator.jobs import KINDS, Options, jobs
from benchmarks.measure import RESULTS
from experiments.environment import command
from experiments.gpu_plan.process import stopping
from experiments.running.files import write_json

FILE = RESULTS / "accelerator.json"

FAILED = "error"
"""What a job that failed has in the place of a result; it is tried again at the next start."""

LONGEST = 300
"""Characters of an error that are kept."""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, which needs no package."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=__doc__)
    made.add_argument("--output", type=Path, default=FILE, help="the JSON file")
    made.add_argument("--seconds", type=float, default=3600.0, help="end all of it after so long")
    made.add_argument("--job", help="measure this job alone, in this process, and print it")
    made.add_argument("--batches", type=int, nargs="+")
    made.add_argument("--kinds", nargs="+", choices=list(KINDS))
    made.add_argument("--channels", type=lambda text: text if text == "M" else int(text), nargs="+")
    for name in ("num_steps", "image", "repeats", "matrix", "weights"):
        made.add_argument(f"--{name.replace('_', '-')}", type=int)
    return made


def options_of(arguments: argparse.Namespace) -> Options:
    """Returns what is to be measured."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    return Options(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v is not None})


def main(given: Sequence[str] | None = None) -> None:
    """The command line."""
    given = sys.argv[1:] if given is None else given
    arguments = parser().parse_args(given)
    options = options_of(arguments)
    if arguments.job is None:
        try:
            with stopping():
                measure(options, given, arguments.output, time.monotonic() + arguments.seconds)
        except ValueError as error:
            sys.exit(f"error: {error}")
        return
    from benchmarks.accelerator.measure import one  # JAX: the process that starts the others must not take the device
    from benchmarks.measure import machine
    from experiments.environment import environment

    print(json.dumps({"head": environment() | {"device": machine()}, "found": one(options, arguments.job)}))


def measure(options: Options, given: Sequence[str], path: Path, end: float) -> None:
    """Measures what a file does not hold yet, a process a job, and writes it after each.

    Args:
      options: what is measured.
      given: the command line, for the processes.
      path: the file.
      end: on the monotonic clock; what has not ended by then is left out.

    Raises:
      ValueError: the file was measured with other options, or on another machine.
    """
    content = json.loads(path.read_text()) if path.exists() else {"result": begun(options)}
    result = content["result"]
    if result["options"] != begun(options)["options"]:
        raise ValueError(f"--output: {path} was measured with other options; choose another file.")
    for job in jobs(options):
        left = end - time.monotonic()
        if left <= 0 or FAILED not in result["jobs"].get(job, {FAILED: ""}):
            continue
        answer = answered([*given, "--job", job], left)
        head = answer.get("head", {})
        if head and content.get("device", head["device"]) != head["device"]:
            raise ValueError(f"--output: {path} was measured on another machine; choose another file.")
        result["jobs"][job] = answer.get("found", answer)
        content = {**head, **content, "command": command(), "result": result}
        write_json(path, content)
        print(f"{job}: {result['jobs'][job].get(FAILED, 'measured')}", flush=True)


def begun(options: Options) -> dict[str, Any]:
    """Returns a result without a job."""
    found = importlib.util.find_spec("spikingjelly") is not None
    # Its online layers have a benchmark of their own, on the CPU: benchmarks.peers.
    word = "importable here, but not measured on this device" if found else "not importable here, and not measured"
    return {"options": json.loads(json.dumps(dataclasses.asdict(options))), "SpikingJelly": word, "jobs": {}}


def answered(arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Returns what a process of this command prints, or the last line of its error."""
    script = [sys.executable, "-m", "benchmarks.accelerator", *arguments]
    try:
        done = subprocess.run(script, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {FAILED: f"not done within {seconds:.0f} seconds"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {FAILED: lines[-1][:LONGEST]}
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
