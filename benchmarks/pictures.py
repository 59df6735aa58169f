"""The pictures of the benchmarks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

OURS, RIVAL, OTHER = "#0072B2", "#D55E00", "#888888"
SHADES = ("#0072B2", "#56B4E9", "#009E73", "#CC79A7")
MIB = 2**20


def draw(folder: Path, results: Mapping[str, dict[str, Any]]) -> list[Path]:
    """Draws those pictures whose results are there; returns their files."""
    drawn = []
    for name, picture in (("memory", memory), ("bits", bits), ("speed", speed)):
        if name in results:
            path = folder / f"bench-{name}.png"
            picture(path, results[name]["result"])
            drawn.append(path)
    return drawn


def memory(path: Path, result: dict[str, Any]) -> None:
    """Draws compiled bytes against T on logarithmic axes, with the floors."""
    figure = _figure((8, 4.5))
    axes = figure.subplots()
    names = list(dict.fromkeys(row["step"] for row in result["rows"]))
    shades = iter((*SHADES, "#000000"))
    for name in names:
        rows = sorted((row for row in result["rows"] if row["step"] == name), key=lambda row: row["T"])
        steps = [row["T"] for row in rows]
        sizes = [(row["arguments"] + row["temporaries"]) / MIB for row in rows]
        if "BPTT" in name:
            style: dict[str, Any] = {"color": RIVAL, "marker": "o", "lw": 2.5}
        elif "automatic" in name:
            style = {"color": OTHER, "ls": "--" if "bfloat16" in name else "-", "lw": 1.5}
        else:
            style = {"color": next(shades), "marker": "o", "lw": 2}
        axes.plot(steps, sizes, label=name, **style)
    for floor, parts in result["floor"].items():
        axes.axhline(sum(parts.values()) / MIB, color=OTHER, ls=":", lw=1)
        axes.annotate(f"floor, {floor}", (2.05, sum(parts.values()) / MIB), fontsize=8, va="bottom", color="#555555")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({row["T"] for row in result["rows"]}), sorted({row["T"] for row in result["rows"]}))
    ticks = (300, 500, 1000, 2000, 5000, 10000, 20000)
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    _finish(axes, f"Memory of a training step: {result['network']}, batch {result['batch']}", "time steps T", "MiB")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=110)


def bits(path: Path, result: dict[str, Any]) -> None:
    """Draws the bits of a weight as bars of their parts."""
    figure = _figure((8, 3.2))
    axes = figure.subplots()
    names = list(result["rows"])[::-1]
    left = [0.0] * len(names)
    for key, label, color in (
        ("signs", "sign", OURS),
        ("momentum", "momentum", "#56B4E9"),
        ("optimizer_other", "latent weight and its moments", RIVAL),
    ):
        sizes = [result["rows"][name][key] for name in names]
        axes.barh(names, sizes, left=left, color=color, label=label)
        left = [one + two for one, two in zip(left, sizes, strict=True)]
    for index, total in enumerate(left):
        axes.annotate(f" {total:.2f}", (total, index), va="center", fontsize=9)
    axes.set_xlim(0, max(left) * 1.1)
    _finish(axes, "Training state of a binary weight", "bits", "")
    axes.grid(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


def speed(path: Path, result: dict[str, Any]) -> None:
    """Draws each comparison of times: the median, and from the lowest to the highest."""
    comparisons = result["comparisons"]
    figure = _figure((14, 6))
    for axes, (title, found) in zip(figure.subplots(2, 4).ravel(), comparisons.items(), strict=False):
        names = list(found["rows"])[::-1]
        for index, name in enumerate(names):
            spread = found["rows"][name]
            color = RIVAL if "latent" in name else OTHER if "automatic" in name else OURS
            axes.barh(index, spread["median"], color=color, alpha=0.85)
            axes.plot([spread["min"], spread["max"]], [index, index], color="black", lw=1)
        axes.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=7)
        _finish(axes, title, "time, ratio to the first", "")
    figure.savefig(path, dpi=110)


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
