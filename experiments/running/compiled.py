"""Compiled programs, kept from one process to the next."""

import tempfile
from pathlib import Path

import jax

from experiments.config import Session


def keep_compiled(folder: Path) -> None:
    """Lets JAX keep in a folder whatever it compiles from here on, and take from it what it holds already.

    A process that finds its programs there starts sooner and needs hardly any of the compiler's memory.

    Args:
      folder: made if missing; several processes may share it.

    Raises:
      OSError, ValueError: nothing can be written there; JAX itself would only warn, at each program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def keep_programs(session: Session) -> None:
    """Keeps the programs of a session, if it asks for that.

    Raises:
      ValueError: nothing can be written into its folder.
    """
    if session.compilation_cache is None:
        return
    try:
        keep_compiled(session.compilation_cache)
    except (OSError, ValueError) as error:
        told = f"--compilation-cache: programs cannot be kept in {str(session.compilation_cache)!r}: {error}."
        raise ValueError(told) from error
