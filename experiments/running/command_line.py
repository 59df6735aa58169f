"""The command line of a training: what it says is to be run, and how its process ends."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import jax
import tyro
from rich.console import Console

from experiments.config import Config, of_command_line
from experiments.configs import CONFIGS
from experiments.rules import described
from experiments.running.folder import stored_run
from experiments.running.stop import Stop, Stopped

PROGRAM = "python -m experiments.train"

HELP = f"""Trains a network.

Rules (--optimizer, --preset) and their settings:

{described()}"""

BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
"""What a bad setting, or a missing file or package, raises before anything is trained."""

FAILED = (ValueError, OSError, FloatingPointError, jax.errors.JaxRuntimeError)
"""What ends a training that cannot go on."""


def parse(arguments: list[str] | None = None) -> tuple[str, Config]:
    """Returns the name of a config, and its settings with the user's changes; None: of this process's command line.

    Where a run is to be resumed its own settings stand in the place of the config's, whose name may then be left out.

    Raises:
      ValueError: a preset is given, and the rule has none; or the settings of the run to resume are damaged.
      SystemExit: help is asked for, or a name or value is none; a message has been printed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    given = arguments[0] if arguments and not arguments[0].startswith("-") else None
    resumed = _to_resume(arguments)
    if resumed is not None and given in (None, resumed[0]):
        name, base = resumed
    elif given in CONFIGS:
        name, base = given, CONFIGS[given][1]
    else:
        tyro.extras.overridable_config_cli(CONFIGS, prog=PROGRAM, description=HELP, args=arguments)
        raise SystemExit(2)
    options = arguments[given is not None :]
    about = f"{CONFIGS[name][0]}\n\n{HELP}" if name in CONFIGS else HELP
    config = tyro.cli(
        Config,
        default=base,
        prog=f"{PROGRAM} {name}",
        description=about,
        args=options,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return name, of_command_line(config, base, options)


def _to_resume(arguments: list[str]) -> tuple[str, Config] | None:
    """Returns the name and the settings of the run that a command line wants to go on with; None: there is none yet."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output", nargs="?", type=Path)
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=False)
    found, _ = parser.parse_known_args(arguments)
    if not found.resume or found.output is None or not (found.output / "config.json").is_file():
        return None
    return stored_run(found.output)


@contextlib.contextmanager
def ending(status: int, errors: tuple[type[Exception], ...], stop: Stop) -> Iterator[None]:
    """Ends the process where one of these errors comes up within, with a status and a message of one line.

    A stop on request has a status of its own (see Stop).
    """
    try:
        yield
    except Stopped as error:
        _end(error, stop.status, str(error))
    except errors as error:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError):
            text = f"the device failed: {text.partition(chr(10))[0]}"
        _end(error, status, f"error: {text}")


def _end(error: Exception, status: int, message: str) -> NoReturn:
    """Ends the process with a message, and what is known of the last good checkpoint."""
    lines = [message, *getattr(error, "__notes__", [])]
    Console(stderr=True, soft_wrap=True).print("\n".join(lines), markup=False, highlight=False)
    sys.exit(status)
