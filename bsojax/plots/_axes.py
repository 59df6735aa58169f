"""What all pictures share: matplotlib or the reason it is missing, axes to draw on, colours, labels."""

try:
    import matplotlib
    from matplotlib.axes import Axes as Axes
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError("bsojax.plots: needs a package; pip install 'bsojax[plots]'.") from error

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#888888"
"""For the data, what it is compared with, and everything else: from Okabe and Ito's palette for the colour-blind."""

DISTINCT = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours for things without an order, from the same palette."""

_NAMES_IN_A_COLUMN = 12


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """Returns the axes to draw on: the given ones, or the only ones of a new figure of the given size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt  # selects a backend: not before a new figure is needed

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def by_depth(count: int) -> list[tuple[float, ...]]:
    """Returns colours for layers in order, dark first and bright last; the order is visible to all eyes."""
    colors = matplotlib.colormaps["viridis"]
    return [colors(0.88 * place / max(count - 1, 1)) for place in range(count)]


def finish(ax: Axes, x: str, y: str) -> Axes:
    """Labels the axes and adds a grid; returns them."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(alpha=0.3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def name_lines(ax: Axes) -> None:
    """Puts the names of lines beside the axes, where they cover no line."""
    handles, _ = ax.get_legend_handles_labels()
    columns = -(-len(handles) // _NAMES_IN_A_COLUMN)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9, ncols=columns)


def whole_numbers(ax: Axes) -> None:
    """Allows only whole numbers on the axis of time steps, batches or epochs."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
