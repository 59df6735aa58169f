"""The plan: which commands, how long each may take, and what each writes. It imports no JAX."""

import dataclasses
import json
import sys
from pathlib import Path

RULES = ("calibrated", "paper", "ottt-adam")
"""What is trained: our recipe, T-BSO with the paper's settings, and OTTT with latent weights and Adam."""

TIME_STEPS = {2: 150.0, 4: 205.0}
"""Seconds of a training at each T, of a plan of WHOLE seconds."""

DEVICE_SECONDS, BENCHMARK_SECONDS, WHOLE = 20.0, 360.0, 1500.0

SMALL = {"batches": "2", "image": "8", "num-steps": "2", "repeats": "5", "matrix": "32", "weights": "4096"}
"""Options of the benchmark in a rehearsal, besides a small network and one kind of step."""


@dataclasses.dataclass(frozen=True)
class Step:
    """A process of the plan. It goes on where an earlier one of the same command was cut.

    Attributes:
      name: what it is called.
      module: the module that it runs.
      arguments: its command line.
      seconds: how long it is expected to take.
      writes: the JSON file of its results.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    seconds: float
    writes: Path

    @property
    def command(self) -> list[str]:
        """The command, as a user types it."""
        return ["python", "-m", self.module, *self.arguments]

    @property
    def process(self) -> list[str]:
        """The command, as this interpreter runs it."""
        return [sys.executable, *self.command[1:]]

    def done(self) -> bool:
        """Whether its file says that nothing is left to do."""
        return self.writes.exists() and bool(json.loads(self.writes.read_text()).get("done"))


def make_plan(minutes: float, data: Path, output: Path, *, rehearse: bool = False) -> list[Step]:
    """Returns the steps in their order. They do not fill the time: processes take some to start.

    Args:
      minutes: how long all of it may take.
      data: the folder with the parts of CIFAR-10.
      output: the folder of the results.
      rehearse: two small trainings and one small benchmark in the place of all.
    """
    share = 60 * minutes / WHOLE
    file = output / "device.json"
    steps = [Step("device", "experiments.gpu_plan.device", ("--output", str(file)), DEVICE_SECONDS * share, file)]
    pairs = [(rule, num_steps) for num_steps in TIME_STEPS for rule in RULES]
    for rule, num_steps in [("calibrated", 2), ("ottt-adam", 4)] if rehearse else pairs:
        seconds, file = TIME_STEPS[num_steps] * share, output / f"training-T{num_steps}-{rule}.json"
        wanted = ["--rule", rule, "--num-steps", str(num_steps), "--seconds", f"{seconds:.0f}"]
        places = ["--data", str(data), "--output", str(file)]
        arguments = (*wanted, *places, *(["--rehearse"] if rehearse else []))
        steps.append(Step(f"{rule}, T = {num_steps}", "experiments.gpu_plan.training", arguments, seconds, file))
    seconds, file = BENCHMARK_SECONDS * share, output / "accelerator.json"
    arguments = ("--output", str(file), "--seconds", f"{seconds:.0f}")
    if rehearse:
        small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
        arguments = (*arguments, *small, "--channels", "4", "M", "8", "--kinds", "bfloat16 activations")
    return [*steps, Step("benchmark", "benchmarks.accelerator", arguments, seconds, file)]
