"""Writes the pages of the benchmarks and their pictures from benchmarks/results: ``python -m benchmarks.render``.

A section of docs/BENCHMARKS.md is made by the script that measures it: its ``tell`` and, where it has a picture, its
``draw``. The prose is in benchmarks/pages; a part whose file is missing says how to make it.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import (
    bits,
    compile_time,
    edge,
    epoch,
    faults,
    forward,
    memory,
    popcount,
    profile,
    scaling,
    speed,
    votes,
)
from benchmarks.accelerator import page as accelerator
from benchmarks.peers import table as peers
from benchmarks.tpu import page as tpu
from experiments import pages

Results = dict[str, dict[str, Any]]
"""The content of each file of benchmarks/results, by name."""

PICTURES = {"memory": memory.draw, "bits": bits.draw, "speed": speed.draw}
TEMPLATES = Path(__file__).with_name("pages")


def main(root: Path = Path()) -> None:
    """Writes the pages and their pictures."""
    results = load(root)
    for name in PICTURES.keys() & results.keys():
        drawing = PICTURES[name](results[name]["result"])
        pages.save_picture(root / "docs" / "pictures" / f"bench-{name}.png", drawing)
    written = {
        "BENCHMARKS": benchmarks,
        "SCALING": devices,
        "RELIABILITY": reliability,
        "ACCELERATORS": accelerators,
    }
    for name, page in written.items():
        pages.write(root / "docs" / f"{name}.md", page(results))


def load(root: Path) -> Results:
    """Returns the results by the name of their file."""
    files = sorted((root / "benchmarks" / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def benchmarks(results: Results) -> str:
    """Returns docs/BENCHMARKS.md."""
    bench = {"memory": memory, "bits": bits, "speed": speed, "profile": profile, "epoch": epoch}
    bench |= {"forward": forward, "popcount": popcount, "edge": edge}
    values = {name: _part(results, name, script.tell, "make bench") for name, script in bench.items()}
    values |= {
        "compile_time": _part(results, "compile_time", compile_time.tell, "python -m benchmarks.compile_time"),
        "peers": _part(results, "peers", peers.tell, "make bench-peers"),
        "peers_memory": _part(results, "peers-memory", peers.tell_memory, "make bench-peers"),
        "accelerator": _part(results, "accelerator", accelerator.tell, "python -m benchmarks.accelerator"),
    }
    return pages.filled(TEMPLATES / "BENCHMARKS.md", values)


def devices(results: Results) -> str:
    """Returns docs/SCALING.md."""
    scripts = {"scaling": scaling, "votes": votes}
    values = {name: _part(results, name, one.tell, f"python -m benchmarks.{name}") for name, one in scripts.items()}
    return pages.filled(TEMPLATES / "SCALING.md", values)


def reliability(results: Results) -> str:
    """Returns docs/RELIABILITY.md."""
    found = results.get("faults", {"versions": {}})["versions"].items()
    values = {
        "tests": ", ".join(faults.TESTS),
        "faults": _part(results, "faults", faults.tell, "make faults"),
        "versions": f"With {', '.join(f'{name} {number}' for name, number in found)}." if found else "",
    }
    return pages.filled(TEMPLATES / "RELIABILITY.md", values)


def accelerators(results: Results) -> str:
    """Returns docs/ACCELERATORS.md."""
    if "tpu" not in results:
        parts = dict.fromkeys(tpu.PARTS, "") | {"source": "Not measured yet: `make tpu`."}
        return pages.filled(TEMPLATES / "ACCELERATORS.md", parts)
    file = results["tpu"]
    counted = results["scaling"]["result"]["traffic"] if "scaling" in results else []
    values = {name: pages.joined(*tell(file["result"]["rows"], counted)) for name, tell in tpu.PARTS.items()}
    values["source"] = pages.source("../benchmarks/results/tpu.json", file)
    return pages.filled(TEMPLATES / "ACCELERATORS.md", values)


def _part(results: Results, name: str, tell: Callable[[Any], Iterable[str]], command: str) -> str:
    if name not in results:
        return f"Not measured yet: `{command}`."
    file = results[name]
    # Earlier files of the peers have no separate key for the result.
    said = tell(file.get("result", file))
    return pages.joined(*said, pages.source(f"../benchmarks/results/{name}.json", file))


if __name__ == "__main__":
    main()
