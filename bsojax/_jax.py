"""Names in JAX that are young, private or on their way out: the one file to check when JAX changes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend
from jax.interpreters import partial_eval


def is_traced(value: Any) -> bool:
    """Whether value is an array whose elements are unknown while its function is traced."""
    return isinstance(value, jax.core.Tracer)


def varying_axes(array: jax.Array) -> Any:
    """The device axes over which shard_map's checks consider an array to vary; empty or None outside shard_map."""
    kind: Any = jax.typeof(array)
    return getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None)


def marked_varying(array: jax.Array, axis_name: str) -> jax.Array:
    """Returns an array that is the same on all devices of an axis, marked for shard_map as one that may differ."""
    marked: jax.Array = jax.lax.pcast(array, axis_name, to="varying")
    return marked


def axis_size(axis_name: str) -> int:
    """The number of devices on an axis of pmap, shard_map or vmap."""
    return jax.lax.axis_size(axis_name)


def jit_is_disabled() -> bool:
    """Whether functions run uncompiled, as within ``jax.disable_jit``."""
    return bool(getattr(jax.config, "jax_disable_jit", False))


def without_dead_code(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Returns a function that, for arrays like these arguments, does the same without operations that have no effect.

    ``jax.jit`` removes dead code on its own, but (jax 0.10 to 0.12) not where a shape is symbolic.
    """
    traced = jax.jit(function).trace(*arguments)
    jaxpr, _ = partial_eval.dce_jaxpr(traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.jaxpr.outvars), instantiate=True)
    run = jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(jaxpr, traced.jaxpr.consts))
    structure = jax.tree.structure(traced.out_info)
    return lambda *arguments: jax.tree.unflatten(structure, run(*jax.tree.leaves(arguments)))


@contextlib.contextmanager
def without_source_paths() -> Iterator[None]:
    """A context in which programs are lowered without the paths of their source files, so that no paths are shipped."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
