"""How long compiling a training step takes, and how often it calls the model: ``python -m benchmarks.compile_time``.

With ``--against``, another checkout of this repository is measured too, in turns with this one, by the same script.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.measure import RESULTS, load_text, mark_load, ratio_text, ratios, rotated, save
from experiments.environment import command, revision
from experiments.pages import table
from experiments.spread import Spread

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("compile_once.py")
HERE, THERE = "this checkout", "the other checkout"

JOBS: dict[str, dict[str, Any]] = {
    "digits": {"channels": [16, 32, "M", 64, 64], "image": [8, 8, 1], "batch": 32, "num_steps": 4},
    "VGG-11": {
        "channels": [64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512],
        "image": [32, 32, 3],
        "batch": 32,
        "num_steps": 4,
    },
}
PARTS = ("trace", "lower", "compile")
COUNTS = ("calls in a trace", "calls in a first call")


def main(against: Path | None = None, rounds: int = 5, output: Path = RESULTS / "compile_time.json") -> None:
    """Measures, and writes benchmarks/results/compile_time.json.

    Args:
      against: another checkout of this repository, to compare with.
      rounds: how often each step is compiled.
      output: the JSON file.
    """
    if rounds < 1:
        raise SystemExit(f"error: --rounds: must be at least 1, got {rounds}.")
    checkouts = {HERE: ROOT} | ({THERE: against.resolve()} if against is not None else {})
    if against is not None and not (against / "bsojax").is_dir():
        raise SystemExit(f"error: --against: {against} is not a checkout of this repository: it holds no bsojax.")
    said = command() if against is None else command().replace(str(against), "CHECKOUT")
    save(output, measure(checkouts, rounds), command=said)


def measure(checkouts: Mapping[str, Path], rounds: int, jobs: Mapping[str, Any] = JOBS) -> dict[str, Any]:
    """Returns one row per job and checkout: seconds of each part, calls of the model, and the total over the last's.

    Args:
      checkouts: folders that hold the library, by name.
      rounds: how often each is measured, in turn.
      jobs: the arguments of compile_once.measure, by name.
    """
    console, load = Console(), mark_load()
    rows = []
    for job, arguments in jobs.items():
        found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for turn in range(rounds):
            for name in rotated(list(checkouts), turn):
                found[name].append(compiled(checkouts[name], arguments))
                console.print(f"{job}, {name}: {found[name][-1]}", highlight=False, soft_wrap=True)
        whole = {name: [sum(one[part] for part in PARTS) for one in ones] for name, ones in found.items()}
        compared = ratios(whole, [*checkouts][-1])
        for name, ones in found.items():
            seconds = {part: Spread.of(one[part] for one in ones).quantiles(4) for part in PARTS}
            counts = {count: int(max(one[count] for one in ones)) for count in COUNTS}
            rows.append({"job": job, "checkout": name, **seconds, **counts, "ratio": compared[name].quantiles(4)})
    return {
        "jobs": dict(jobs),
        "revisions": {name: revision(folder) for name, folder in checkouts.items()},
        "rounds": rounds,
        "cores busy with other work": round(load.others(), 2),
        "rows": rows,
    }


def compiled(checkout: Path, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Returns the output of a separate process that imports the library of a checkout.

    Raises:
      subprocess.CalledProcessError: it failed.
    """
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    # Without -P the script's own folder, with a profile.py in it, would come before the standard library.
    script = [sys.executable, "-P", str(SCRIPT), json.dumps(arguments)]
    environment = {**kept, "PYTHONPATH": str(checkout)}
    done = subprocess.run(script, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    told = "; ".join(
        f"{name}: SpikingVGG{tuple(job['channels'])} on {job['image']}, batch {job['batch']}, T = {job['num_steps']}"
        for name, job in result["jobs"].items()
    )
    yield (
        f"Median seconds to trace, lower and compile a training step with nothing cached ({told}), in separate "
        f"processes, {result['rounds']} rounds in turn; the ratio is that of the total to the last checkout's total."
    )
    yield table(
        ("step", "checkout", *(f"{part}, s" for part in PARTS), "all, ratio", *(f"model {name}" for name in COUNTS)),
        [
            (row["job"], f"{row['checkout']} ({_short(result['revisions'][row['checkout']])})",
             *(f"{row[part]['median']:.2f}" for part in PARTS), ratio_text(row["ratio"]),
             *(str(row[count]) for count in COUNTS))
            for row in result["rows"]
        ],
    )  # fmt: skip
    yield load_text(result)


def _short(sha: str | None) -> str:
    return "no revision" if sha is None else sha[:7] + sha[40:]  # the plus sign of changed files


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.compile_time")
