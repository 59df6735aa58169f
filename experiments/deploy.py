"""Takes the network of a run to devices: ``python -m experiments.deploy RUN [--c FOLDER] [--net FILE] [--check]``."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import tyro
from rich.console import Console

from experiments.deploying import forms
from experiments.deploying.comparison import compare
from experiments.deploying.inputs import grid_of
from experiments.deploying.table import deployment_table, draw
from experiments.deploying.times import measured
from experiments.deploying.trained import trained
from experiments.running.command_line import BAD_INPUT


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 if everything requested is done; 2 if it is not possible, reported in one line before anything is
    written; 1 if the C code differs from the reference or could not be compiled.
    """
    tyro.cli(_deploy, prog="python -m experiments.deploy", description=__doc__, args=arguments)


def _deploy(
    run: tyro.conf.Positional[Path],
    c: Path | None = None,
    net: Path | None = None,
    nir: Path | None = None,
    stablehlo: Path | None = None,
    check: bool = False,
    examples: int | None = None,
    input_bits: int = 8,
    membrane_bits: int = 32,
    data_dir: Path | None = None,
) -> None:
    """Converts the network of a run to an integer network, writes it, and shows what that costs on the test data.

    Args:
      run: The folder of a run of experiments.train.
      c: A folder for net.h and net.c (C99 without dependencies) and bytes.png.
      net: A file for the integer network; bsojax.deploy.load reads it.
      nir: A file for the graph in the Neuromorphic Intermediate Representation.
      stablehlo: A file for the StableHLO program, which jax.export.deserialize reads.
      check: Compare the C code with the NumPy reference bit for bit on all test data, if there is a compiler.
      examples: Use only this many test examples; None: all.
      input_bits: Bits, including the sign, to which real inputs are rounded.
      membrane_bits: Bits of membranes, 8 to 32; 16 halves the memory of event streams.
      data_dir: Folder of prepared data sets; None: the one that the run used.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    with ending(2, BAD_INPUT):
        if examples is not None and examples < 1:
            raise ValueError(f"--examples: must be at least 1, got {examples}.")
        if not 2 <= input_bits <= 16:
            raise ValueError(f"--input-bits: must be in 2 .. 16, got {input_bits}.")
        found = trained(run, data_dir)
        grid = grid_of(found.data, input_bits)
        network = forms.whole(found, grid, membrane_bits)
        sizes = forms.write(found, network, c, net, nir, stablehlo)
    is_compiled = shutil.which("cc") is not None
    if check and not is_compiled:
        console.print("--check: there is no C compiler (cc), so C is not compared", soft_wrap=True)
    with ending(1, (RuntimeError, ValueError, OSError)):
        outcome = compare(found, grid, network, is_compiled=is_compiled, check=check, examples=examples)
        seconds = measured(found.model, found.state, network, grid.whole(forms.example(found)))
        picture = (c or run) / "bytes.png"
        draw(picture, network.report())
    dataset, steps = found.config.dataset, found.config.num_steps
    title = f"{dataset}: {outcome.examples:,} test examples, T = {steps}, inputs {grid}"
    one = f"an example of {steps} frames" if network.is_sequence else f"a frame, {steps} time steps"
    console.print(deployment_table(title, network.report(), sizes, outcome, seconds, one))
    written = [c / f"{forms.NAME}.h", c / f"{forms.NAME}.c"] if c is not None else []
    paths = [*written, *(path for path in (net, nir, stablehlo) if path is not None), picture]
    console.print(f"written: {', '.join(map(str, paths))}", soft_wrap=True, highlight=False)
    if not outcome.is_equal:
        print("error: C differs from the NumPy reference.", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def ending(status: int, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Ends the process with a status and a message if one of these errors is raised within."""
    try:
        yield
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(status)


if __name__ == "__main__":
    main()
