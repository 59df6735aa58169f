"""The off-switch, and the choice between the CPU version and the plain one."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

R = TypeVar("R")
_PLAIN = contextvars.ContextVar("bsojax_plain_xla", default=False)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """A context in which tracing uses nothing that is meant for XLA on a CPU.

    Use it with a step that is created, and first called or lowered, inside the context: a step that was compiled before
    stays as it is, and so does one that was compiled inside and is called outside.

    Example:
      >>> import jax, jax.numpy as jnp, bsojax
      >>> x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
      >>> gradient = jax.grad(lambda kernel: bsojax.conv(x, kernel).sum())
      >>> with bsojax.xla_cpu.plain():
      ...     lowered = jax.jit(gradient).lower(kernel)
      >>> "optimization_barrier" in lowered.as_text()
      False
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def by_platform(*operands: Any, cpu: Callable[..., R], default: Callable[..., R]) -> R:
    """Returns ``cpu(*operands)`` where the program runs on a CPU, and ``default(*operands)`` elsewhere."""
    if _PLAIN.get():
        return default(*operands)
    result: R = jax.lax.platform_dependent(*operands, cpu=cpu, default=default)
    return result
