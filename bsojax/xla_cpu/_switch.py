"""The off-switch, and the choice between a CPU's way and the plain one."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax

_PLAIN = contextvars.ContextVar("bsojax_plain_xla", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Within, what is traced does without anything that is meant for XLA on a CPU.

    Example:
      >>> import bsojax
      >>> with bsojax.xla_cpu.plain():
      ...     pass  # lowered = step.lower(state, x, y)
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def by_platform(*operands: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Returns ``cpu(*operands)`` where the program runs on a CPU, and ``default(*operands)`` elsewhere."""
    if _PLAIN.get():
        return default(*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, default=default)
