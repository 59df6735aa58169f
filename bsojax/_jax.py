"""Names of JAX that are young, private or on their way out: the one file to look at when JAX changes."""

from typing import Any

import jax


def is_traced(value: Any) -> bool:
    """Whether value is an array whose elements are not known while its function is traced."""
    return isinstance(value, jax.core.Tracer)


def varying_axes(array: jax.Array) -> Any:
    """The device axes over which shard_map's checks know an array to vary; empty or None outside of them."""
    kind: Any = jax.typeof(array)
    return getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", None)


def marked_varying(array: jax.Array, axis_name: str) -> jax.Array:
    """Returns an array that is the same on all devices of an axis, marked for shard_map as one that may differ."""
    return jax.lax.pcast(array, axis_name, to="varying")


def axis_size(axis_name: str) -> int:
    """The number of devices on an axis of pmap, shard_map or vmap."""
    return jax.lax.axis_size(axis_name)


def jit_is_disabled() -> bool:
    """Whether functions run without being compiled, as within ``jax.disable_jit``."""
    return bool(getattr(jax.config, "jax_disable_jit", False))
