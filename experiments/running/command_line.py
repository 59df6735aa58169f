"""The command line of a training: which run it names, and how its process ends."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax
import tyro
from rich.console import Console

from experiments.config import Config, of_command_line
from experiments.configs import CONFIGS
from experiments.rules import described
from experiments.running.folder import resumed
from experiments.running.stop import Stop, Stopped

PROGRAM = "python -m experiments.train"

HELP = f"""Trains a network.

Rules (--optimizer, --preset) and their settings:

{described()}"""

HELP_FLAGS = {"-h", "--help"}

BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
"""Errors for a bad setting, or a missing file or package, before anything is trained."""

FAILED = (ValueError, OSError, FloatingPointError, jax.errors.JaxRuntimeError)
"""Errors that end a training that cannot continue."""


def parse(arguments: list[str] | None = None) -> tuple[str, Config]:
    """Returns the name of a config, and its settings with the user's changes (None: this process's command line).

    With ``--resume``, if ``--output`` holds a run, the settings are those of that run, and no name or other option is
    needed. Options that are given still count: the folder refuses those that differ (see ``entered``).

    Raises:
      ValueError: a preset is given, but the rule has none; the run to continue is damaged or of another config; or
        there is none and no config is named.
      SystemExit: help is requested, or a name or value is invalid; a message has been printed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments and arguments[0] in CONFIGS else None
    options = arguments if name is None else arguments[1:]
    begun = _begun(name, options)
    if begun is not None:
        program, summary, (name, base) = PROGRAM, HELP, begun
    elif name is not None:
        # Parse only the named config: with those of all, a mistyped option would be looked for in each.
        program, (summary, base) = f"{PROGRAM} {name}", CONFIGS[name]
    elif arguments and arguments[0].startswith("-") and not HELP_FLAGS & set(arguments):
        raise ValueError(
            f"{arguments[0]}: name a config before all options, as in {PROGRAM} digits; --help lists them."
        )
    else:
        tyro.extras.overridable_config_cli(CONFIGS, prog=PROGRAM, description=HELP, args=arguments)
        sys.exit(2)  # not reached: help, or what is wrong, has been printed
    config = tyro.cli(
        Config, prog=program, description=summary, args=options, default=base, config=(tyro.conf.AvoidSubcommands,)
    )
    return name, of_command_line(config, base, options)


def _begun(name: str | None, options: Sequence[str]) -> tuple[str, Config] | None:
    """Returns the config's name and the settings of the run to continue; None: none has begun."""
    looked_for = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    looked_for.add_argument("--resume", action="store_true")
    looked_for.add_argument("--output", type=Path, nargs="?")
    given, _ = looked_for.parse_known_args(options)
    output = given.output or (CONFIGS[name][1].output if name is not None else None)
    if not given.resume or output is None:
        return None
    begun = resumed(output)
    if begun is None and name is None and not HELP_FLAGS & set(options):
        raise ValueError(f"--resume: {output} holds no run yet; name the config that is to start there.")
    if begun is not None and name not in (None, begun[0]):
        raise ValueError(f"--resume: the run in {output} is of the config '{begun[0]}', not '{name}'.")
    return begun


@contextlib.contextmanager
def ending(status: int, errors: tuple[type[Exception], ...], stop: Stop) -> Iterator[None]:
    """Ends the process with a status and a message of one line if one of these errors is raised within.

    A stop on request has its own status (see Stop).
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
    """Ends the process with a message and a note on the last good checkpoint."""
    lines = [message, *getattr(error, "__notes__", [])]
    Console(stderr=True, soft_wrap=True).print("\n".join(lines), markup=False, highlight=False)
    sys.exit(status)
