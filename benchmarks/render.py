"""Renders docs/BENCHMARKS.md and its pictures from benchmarks/results/*.json: ``python -m benchmarks.render``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import pictures
from experiments.evidence.tables import table

Results = dict[str, dict[str, Any]]

MIB = 2**20
INTRODUCTION = """# Benchmarks

Written by `python -m benchmarks.render` from the files in benchmarks/results, which `make bench` and `make bench-peers`
write. Bytes are those of the compiled step: exact, and the same on every run. Times on a CPU are ratios within one
process, taken in turns: the median of the rounds, and from the lowest to the highest. What a measurement depends on,
the command, versions and device, stands at the head of its file."""


LEAN = (
    "XLA_FLAGS=--xla_cpu_use_fusion_emitters=false python -m benchmarks.peers --only OTTT SLTT --num-steps 16 "
    "--output benchmarks/results/peers-lean.json"
)

WHERE = """\
A two-dimensional convolution with fewer than 128 outputs, or a kernel below 512 KiB, has one core in XLA on a CPU
(jaxlib 0.10), in a loop or not; so had all but one of this job's convolutions and gradients. Written along rows
(bsojax/_rows.py) they have all cores: the last table of times above is with and without."""


def main(root: Path = Path()) -> None:
    """Writes the page and its pictures."""
    results = load(root)
    folder = root / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures.draw(folder, results)
    (root / "docs" / "BENCHMARKS.md").write_text(page(results))


def load(root: Path) -> Results:
    """Returns the results by the name of their file."""
    files = sorted((root / "benchmarks" / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def page(results: Results) -> str:
    """Returns the page; a part whose file is missing says how to make it."""
    parts = [
        INTRODUCTION,
        "## Memory of a training step",
        *_part(results, "memory", _memory),
        "## Bits of a binary weight in training",
        *_part(results, "bits", _bits),
        "## Time of a training step",
        *_part(results, "speed", _speed),
        "## Where the time goes",
        *_part(results, "profile", _profile),
        "## A whole epoch as one program",
        *_part(results, "epoch", _epoch),
        "## Beside the peers",
        *_part(results, "peers", _peers, "make bench-peers"),
        "### With less memory for the compiler",
        *_part(results, "peers-lean", _lean, LEAN),
        "## Products of spikes and signs",
        *_part(results, "forward", _forward),
        "## On an accelerator",
        *_part(results, "accelerator", _accelerator, "python -m benchmarks.accelerator"),
    ]
    return "\n\n".join(parts) + "\n"


def _part(results: Results, name: str, render: Any, command: str = "make bench") -> Iterable[str]:
    if name not in results:
        return [f"Not measured yet: `{command}`."]
    file = results[name]
    head = f"From benchmarks/results/{name}.json, written by `{file['command']}` with jax {file['versions']['jax']}"
    device = file["device"]
    cores = f" ({device['cores']} cores)" if device["platform"] == "cpu" else ""
    return [*render(file.get("result", file)), f"{head} on {device['kind']}{cores}."]


def _memory(result: dict[str, Any]) -> Iterable[str]:
    steps = sorted({row["T"] for row in result["rows"]})
    cells: dict[str, dict[int, int]] = {}
    for row in result["rows"]:
        cells.setdefault(row["step"], {})[row["T"]] = row["arguments"] + row["temporaries"]
    rows = [(name, *(f"{found[T] / MIB:,.0f}" if T in found else "" for T in steps)) for name, found in cells.items()]
    yield (
        f"{result['network']}, batch {result['batch']}, {result['input']}: argument and temporary bytes of the "
        "compiled step in MiB."
    )
    yield table(("step", *(f"T = {T}" for T in steps)), rows)
    ours, floors = cells["float32"], result["floor"]
    told = "; ".join(
        f"{name}: {sum(parts.values()) / MIB:,.0f} MiB ("
        + ", ".join(f"{part} {size / MIB:,.0f}" for part, size in parts.items())
        + ")"
        for name, parts in floors.items()
    )
    growth = max(ours.values()) - min(ours.values())
    yield (
        f"Floors: {told}. From T = {steps[0]} to T = {steps[-1]} the float32 step grows by {growth} bytes: "
        "T-BSO keeps a second moment a layer and time step, and that is all that grows. The released PyTorch code is "
        'reported at 2.9 GB for BSO and 3.1 GB for T-BSO. "Automatic differentiation" is the same step with a norm '
        "and neurons written plainly (benchmarks/plain.py)."
    )
    yield "![Memory against T](pictures/bench-memory.png)"


def _bits(result: dict[str, Any]) -> Iterable[str]:
    rows = [
        (name, *(f"{found[key]:.3f}" for key in ("signs", "momentum", "optimizer_other")), f"{sum(found.values()):.3f}")
        for name, found in result["rows"].items()
    ]
    yield f"{result['network']}, {result['weights']:,} binary weights."
    yield table(("state", "sign", "momentum, with scales", "other optimizer state", "all"), rows)
    yield (
        "Latent weights are other state, with Adam's two moments; their sign follows from them. What "
        "accuracy fewer bits cost is in RESULTS.md."
    )
    yield "![Bits a weight](pictures/bench-bits.png)"


def _speed(result: dict[str, Any]) -> Iterable[str]:
    network = result["network"]
    yield (
        f"SpikingVGG{tuple(network['channels'])} on {network['input']}, batch {network['batch']}, T = {network['T']} "
        f"where nothing else is said; {result['rounds']} rounds. Each row is relative to the first of its table."
    )
    for title, found in result["comparisons"].items():
        rows = [(name, _ratio(spread)) for name, spread in found["rows"].items()]
        yield table((title, "time, ratio"), rows)
        yield f"Other processes kept {found['cores busy with other work']:g} cores busy meanwhile."
    yield "![Time of a step](pictures/bench-speed.png)"


def _profile(result: dict[str, Any]) -> Iterable[str]:
    yield (
        f"The longest of {result['operations']} operations of the job above, T = {result['T']}, and their share of the "
        f"time of a step. Two-dimensional convolutions and matrix products that the profiler names are "
        f"{result['shares']['dense']:.0%} of it, all else that it names {result['shares']['others']:.0%}; what is "
        f"left, {result['shares']['unnamed']:.0%}, are the convolutions along rows, which it does not name."
    )
    rows = [
        (f"{row['share']:.1%}", "dense" if row["dense"] else "", row["shape"], row["origin"]) for row in result["rows"]
    ]
    yield table(("share", "", "result", "origin"), rows)
    yield WHERE


def _epoch(result: list[dict[str, Any]]) -> Iterable[str]:
    rows = []
    for found in result:
        one, batches = found["chunks_to_one_call"], found["batches_to_chunks"]
        rows.append(
            (
                f"{found['job']['dataset']}, {found['job']['optimizer']}",
                f"{found['batches']} in {found['chunks']}",
                f"{100 * (one['median'] - 1):.2f} % ({100 * (one['lower_quartile'] - 1):.2f} to "
                f"{100 * (one['upper_quartile'] - 1):.2f})",
                f"{100 * found['chunk_cost']:.2f} %",
                f"{batches['median']:.2f} ({batches['lower_quartile']:.2f} to {batches['upper_quartile']:.2f})",
            )
        )
    header = (
        "job",
        "batches in chunks",
        "as trained, over one call: overhead (quartiles)",
        "of it, empty chunks",
        "batch by batch, over as trained",
    )
    yield table(header, rows)
    yield (
        "Shuffling, front end and training of an epoch are one compiled program, called in chunks so that the bar "
        "moves. The overhead is the time of an epoch as trained over that of a single call of the same program."
    )


def _peers(file: dict[str, Any]) -> Iterable[str]:
    yield (
        f"One training step of the same convolutional network ({file['job']['channels']} channels on "
        f"{file['job']['image']}, batch {file['job']['batch']}), each contender in processes of its own, "
        f"{file['protocol']['rounds']} rounds. Below 1 ours is faster, or smaller. Memory is resident memory above "
        "that of the imports."
    )
    titles = {"time": "time, ours / peer", "memory": "peak memory", "steady_memory": "memory while training"}
    for key, title in titles.items():
        steps = sorted({row["num_steps"] for row in file[key]})
        cells: dict[tuple[str, str], dict[int, str]] = {}
        for row in file[key]:
            text = f"{row['median']:.2f} ({row['min']:.2f} to {row['max']:.2f})"
            cells.setdefault((row["ours"], row["peer"]), {})[row["num_steps"]] = text
        rows = [(*names, *(found.get(T, "-") for T in steps)) for names, found in cells.items()]
        yield table((title, "", *(f"T = {T}" for T in steps)), rows)


def _lean(file: dict[str, Any]) -> Iterable[str]:
    yield (f"Most of our peak is XLA while it compiles, and most of that its fusion emitters. Without them (`{LEAN}`):")
    yield from list(_peers(file))[1:]


def _forward(result: dict[str, Any]) -> Iterable[str]:
    rows, inputs, outputs = result["shape"]
    yield f"{rows} x {inputs} spikes by {inputs} x {outputs} signs; all but bfloat16 give the same numbers."
    found = [(name, _ratio(spread)) for name, spread in result["rows"].items()]
    yield table(("product", "time, ratio to float32"), found)
    yield f"Other processes kept {result['cores busy with other work']:g} cores busy meanwhile."


def _accelerator(result: dict[str, Any]) -> Iterable[str]:
    rows = [
        (
            row["step"],
            str(row["batch"]),
            f"{row['images a second']:,.0f}",
            f"{(row['peak bytes in use'] or row['compiled bytes']) / MIB:,.0f}",
            ", ".join(f"{one['operation']} {one['share']:.0%}" for one in row["longest operations"][:3]),
        )
        for row in result["rows"]
    ]
    yield table(("step", "batch", "images a second", "peak MiB", "longest operations"), rows)
    flips = [
        (dtype, f"{1e3 * found['seconds']['median']:.3f}", f"{found['share of bandwidth']:.0%}")
        for dtype, found in result["flip update"].items()
    ]
    yield table(("momentum", "flip update, ms", "of the measured bandwidth"), flips)


def _ratio(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


if __name__ == "__main__":
    main()
