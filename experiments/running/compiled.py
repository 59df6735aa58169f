"""Compiled programs, kept from one process to the next."""

from pathlib import Path

import jax


def keep_compiled(folder: Path) -> None:
    """Lets JAX keep in a folder whatever it compiles from here on, and take from it what it holds already.

    A process that finds its programs there starts sooner and needs none of the compiler's memory.

    Args:
      folder: made if missing; several processes may share it.

    Raises:
      OSError: it cannot be made; JAX itself would only warn, at each program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
