"""Prints or runs the plan of a GPU for 25 minutes: ``python -m experiments.gpu_plan [--run]``.

The machine needs jax, flax, optax, chex, numpy and orbax alone. Where CIFAR-10 is prepared, ``--pack FOLDER`` writes it
as files of at most 17 MB; bring as many of them as travel, at least one of each split, and name their folder with
--data. Results are the JSON files in --output, replaced as a whole after each epoch and each measurement. The same
command goes on with what is missing there, from the last checkpoint. Each start ends after --minutes.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.gpu_plan.plan import Step, make_plan
from experiments.gpu_plan.process import run


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.gpu_plan", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    way = made.add_mutually_exclusive_group()
    way.add_argument("--dry-run", action="store_true", help="print the plan (this is what happens by default)")
    way.add_argument("--run", action="store_true", help="carry it out, or go on with it")
    way.add_argument("--pack", type=Path, metavar="FOLDER", help="write CIFAR-10, prepared on this machine, as parts")
    made.add_argument("--minutes", type=float, default=25.0, help="what the whole plan is cut for")
    made.add_argument("--data", type=Path, default=Path("data") / "cifar10", help="the folder with the parts")
    made.add_argument("--output", type=Path, default=Path("runs") / "gpu", help="the folder of the results")
    made.add_argument("--rehearse", action="store_true", help="a small network and little of everything, for a CPU")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = parser().parse_args(arguments)
    if not given.minutes > 0:
        sys.exit(f"error: --minutes: must be > 0, got {given.minutes:g}.")
    if given.pack is not None:
        print(pack(given.pack))
        return
    plan = make_plan(given.minutes, given.data, given.output, rehearse=given.rehearse)
    if not given.run:
        print("\n".join(described(plan)))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    failed = run(plan, 60 * given.minutes, given.output)
    print("\n".join(summary(plan)))
    sys.exit(1 if failed else 0)


def pack(folder: Path) -> str:
    """Writes the prepared CIFAR-10 as parts, uint8 images and their labels; returns what was written."""
    from experiments.data import MemorySplit, load  # here: a machine without these packages only reads parts
    from experiments.data.parts import write_parts

    data = load("cifar10")
    assert isinstance(data.train, MemorySplit)
    assert isinstance(data.test, MemorySplit)
    files = write_parts(folder, {"train": data.train, "test": data.test})
    sizes = [file.stat().st_size for file in files]
    return f"{folder}: {len(files)} files, {sum(sizes):,} bytes, the largest {max(sizes):,}"


def described(plan: Sequence[Step]) -> Iterator[str]:
    """Gives out the plan, a paragraph a step."""
    for step in plan:
        yield f"{step.name}: {step.seconds:.0f} s, writes {step.writes}\n  {' '.join(step.command)}"
    yield f"together: {sum(step.seconds for step in plan) / 60:.1f} minutes"


def summary(plan: Sequence[Step]) -> Iterator[str]:
    """Gives out what the results say so far, a line a training."""
    for step in plan:
        content = json.loads(step.writes.read_text()) if step.writes.exists() else {}
        if records := content.get("records"):
            last = records[-1]
            yield (
                f"{step.name}: epoch {last['epoch']:g} of {content['epochs']}, test accuracy "
                f"{100 * last['eval_accuracy']:.2f} %, {content['images']['train']:,} training images"
            )


if __name__ == "__main__":
    main()
