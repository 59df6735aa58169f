"""What a user sees: the progress bar during a run, and the table at its end."""

from typing import Any

import rich.progress
from rich.console import Console
from rich.table import Table

from experiments.build import Run
from experiments.epochs import Chunk

REFRESHES = 4
"""How often per second the bar is drawn: rich's default of ten took a hundredth of a processor core."""


class Bar:
    """A progress bar with loss, accuracy, flips per step and spike rate; without a terminal, one line per epoch."""

    def __init__(self, console: Console, label: str, run: Run) -> None:
        self._console = console
        self._label = label
        self._epochs = run.config.epochs
        self._batches = run.batches
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=20),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[record]}"),
            rich.progress.TimeRemainingColumn(),
        )
        self._progress = rich.progress.Progress(
            *columns, console=console, disable=not console.is_terminal, refresh_per_second=REFRESHES
        )
        self._task = self._progress.add_task(label, total=run.batches * run.config.epochs, record="compiling")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def chunk(self, chunk: Chunk) -> None:
        """Moves the bar."""
        done = (chunk.epoch - 1) * self._batches + chunk.done
        text = f"epoch {chunk.epoch}/{self._epochs}  {_line(chunk.mean)}"
        self._progress.update(self._task, completed=done, record=text)

    def record(self, record: dict[str, Any]) -> None:
        """Prints a line if there is no bar."""
        if not self._console.is_terminal:
            line = _line({**record, "flips": record["flips_per_batch"]})
            head = f"{self._label}  epoch {record['epoch']:g}/{self._epochs}"
            text = f"{head}  {line}  evaluated {record['eval_accuracy']:.2%}"
            self._console.print(text, soft_wrap=True, highlight=False)


def _line(record: dict[str, Any]) -> str:
    return (
        f"loss {record['loss']:.3f}  accuracy {record['accuracy']:.1%}  "
        f"flips/batch {record['flips']:.0f}  spikes {record['spike_rate']:.3f}"
    )


def result_table(summaries: dict[str, dict[str, Any]], split: str) -> Table:
    """The results of a run and, beside it, of its control."""
    table = Table(title="Result")
    table.add_column("")
    for label in summaries:
        table.add_column(label, justify="right")
    rows = {
        f"{split} accuracy, last epoch": lambda s: f"{s['accuracy']:.2%}",
        f"{split} loss, last epoch": lambda s: f"{s['loss']:.3f}",
        "training accuracy, last epoch": lambda s: f"{s['train_accuracy']:.2%}",
        "flips / weight / update, mean over the run": lambda s: f"{s['flip_ratio']:.2e}",
        "flips / weight, over the run": lambda s: f"{s['flips_per_weight']:.2f}",
        "spikes / neuron / time step, mean over the run": lambda s: f"{s['spike_rate']:.3f}",
        "skipped updates": lambda s: str(s["skipped"]),
        "training time": lambda s: f"{s['seconds']:.1f} s",
    }
    for name, show in rows.items():
        table.add_row(name, *(show(summary) for summary in summaries.values()))
    return table


def memory_table(report: dict[str, int], num_signs: int, num_params: int, batch_size: int) -> Table:
    """The memory of training by tree, compared with latent weights and Adam."""
    table = Table(title=f"Memory: {num_signs:,} binary weights, {num_params:,} real parameters, batch {batch_size}")
    table.add_column("")
    table.add_column("bytes", justify="right")
    rows = {
        "signs, packed (as stored)": report["signs_packed"],
        "signs, in training": report["signs"],
        "momentum": report["momentum"],
        "real parameters": report["params"],
        "statistics": report["batch_stats"],
        "other optimizer state": report["optimizer_other"],
        "neuron state": report["neurons"],
        "instead of signs and momentum: latent float32 weights with Adam": report["latent_adam"],
    }
    for index, (name, size) in enumerate(rows.items()):
        table.add_row(name, f"{size:,}", end_section=index == len(rows) - 2)
    return table
