"""The command line of a training: what it says is to be run, and how its process ends."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import jax
import tyro
from rich.console import Console

from experiments.config import Config, of_command_line
from experiments.configs import CONFIGS
from experiments.rules import described
from experiments.running.stop import Stop, Stopped

HELP = f"""Trains a network.

Rules (--optimizer, --preset) and their settings:

{described()}"""

BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
"""What a bad setting, or a missing file or package, raises before anything is trained."""

FAILED = (ValueError, OSError, FloatingPointError, jax.errors.JaxRuntimeError)
"""What ends a training that cannot go on."""


def parse(arguments: list[str] | None = None) -> tuple[str, Config]:
    """Returns the name of a config, and its settings with the user's changes; None: of this process's command line.

    Raises:
      ValueError: a preset is given, and the rule has none.
      SystemExit: help is asked for, or a name or value is none; a message has been printed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    config = tyro.extras.overridable_config_cli(
        CONFIGS, prog="python -m experiments.train", description=HELP, args=arguments
    )
    name = next(argument for argument in arguments if argument in CONFIGS)
    return name, of_command_line(config, CONFIGS[name][1], arguments)


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
