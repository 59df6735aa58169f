"""How pages and pictures are written: tables, where figures come from, templates, and what panels share."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#888888"
"""Ours, its rival and all else in pictures: of Okabe and Ito's palette for the colour-blind."""


def table(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table; a row that is too short ends with empty cells."""
    lines = [[*cells, *[""] * len(header)][: len(header)] for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def source(path: str, content: Mapping[str, Any]) -> str:
    """Returns the line that states the source of figures.

    Args:
      path: the JSON file that holds them, as a link in docs/ names it.
      content: what it holds: the command, the versions, and the device, by its name or as ``machine()`` describes it.
    """
    device = content["device"]
    if not isinstance(device, str):
        many = f"{device['count']} {device['kind']} devices of one host" if device["count"] > 1 else device["kind"]
        device = f"{many} ({device['cores']} cores)" if device["platform"] == "cpu" else many
    ran = f"`{content['command']}` with jax {content['versions']['jax']} on {device}"
    return f"From [{path.removeprefix('../')}]({path}), written by {ran}."


def picture(name: str) -> str:
    """Returns the line that shows docs/pictures/NAME.png."""
    return f"![{name}](pictures/{name}.png)"


def joined(*parts: str | None) -> str:
    """Returns the parts that are not empty, with a blank line between them."""
    return "\n\n".join(part for part in parts if part)


def filled(template: Path, values: Mapping[str, str]) -> str:
    """Returns the text of a page: a template's, with values for its ``{{ names }}``; empty values leave no line.

    Raises:
      KeyError: the template has a name without a value.
    """
    text = re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], template.read_text())
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def write(path: Path, text: str) -> None:
    """Writes a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def figure(width: float, height: float) -> Any:
    """Returns a matplotlib figure of this size in inches that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save_picture(path: Path, drawing: Any, dpi: int = 110) -> Path:
    """Writes a figure as a PNG; returns the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=dpi)
    return path


def finish(axes: Any, title: str, x: str = "", y: str = "", size: int = 11) -> None:
    """Gives a panel what all panels have: a title of this size in points, names of its axes, a grid."""
    axes.set_title(title, fontsize=size)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
