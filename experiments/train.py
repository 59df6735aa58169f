"""Trains a network: ``python -m experiments.train CONFIG [options]``.

A run is a config and its data, built into a network, a compiled step and a state (build.py). To train it is::

    for epoch in range(1, config.epochs + 1):
        for x, y in batches:
            state, metrics = run.step(state, key, x, y)
        state = refreshed(run, state)
        records.append(record_of(run, at, evaluate(run, state, run.data.test)))
        keeper.save(at)

``train`` of loop.py is this loop, made fast and safe.
"""

import contextlib

from rich.console import Console

from experiments.build import prepare
from experiments.data import hold_out, load
from experiments.loop import train
from experiments.running.command_line import BAD_INPUT, FAILED, ending, parse
from experiments.running.compiled import keep_programs
from experiments.running.devices import is_first, start_processes
from experiments.running.folder import entered
from experiments.running.session import execute
from experiments.running.stop import Stop


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Exit status: 0 if the run is done; 2 for a bad setting, reported in one line before anything is trained; 1 if the
    run could not continue; 143 or 130 if it was asked to stop, by SIGTERM or Ctrl-C, and has saved its work.
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop().listening())
        with ending(2, BAD_INPUT, stop):
            name, config = parse(arguments)
            config.check()
            keep_programs(config.session)
            start_processes(config.session)
            data = load(config.dataset, config.data_dir, config.num_steps)
            run = prepare(config, hold_out(data) if config.validation else data)
            folder = stack.enter_context(entered(config, name, run.facts))
        with ending(1, FAILED, stop):
            execute(run, train, folder, Console(quiet=not is_first()), stop)


if __name__ == "__main__":
    main()
