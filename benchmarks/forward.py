"""Products of spikes and signs on a CPU: how far a float32 matmul can be beaten, by unpacked signs, int8 and popcounts.

A product of 0/1 spikes and +-1 signs is ``2 * popcount(spikes & signs) - popcount(spikes)``, exact in integers.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bsojax
from benchmarks.measure import interleave, load_text, mark_load, ratio_text, ratios
from experiments.pages import table

ROWS, INPUTS, OUTPUTS = 128, 1024, 1024


def measure(rounds: int = 15) -> dict[str, Any]:
    """Returns the spread of each product's time over that of the float32 one; all give the same numbers.

    Raises:
      RuntimeError: a product differs.
    """
    random = np.random.default_rng(0)
    spikes = jnp.asarray(random.random((ROWS, INPUTS)) < 0.2, jnp.float32)
    signs = jnp.asarray(random.random((INPUTS, OUTPUTS)) < 0.5)
    packed = bsojax.pack_signs(signs)
    columns = words(signs.T)
    products: dict[str, tuple[Callable[..., jax.Array], tuple[Any, ...]]] = {
        "float32 weights": (jnp.matmul, (spikes, bsojax.to_weights(signs))),
        "boolean signs to float32": (lambda x, w: x @ bsojax.to_weights(w), (spikes, signs)),
        "packed signs to float32": (lambda x, w: x @ bsojax.to_weights(w), (spikes, packed)),
        "bfloat16": (lambda x, w: x.astype(jnp.bfloat16) @ bsojax.to_weights(w, jnp.bfloat16), (spikes, signs)),
        "int8": (int8_product, (spikes, signs)),
        "popcount": (lambda x, w: popcount_product(x, w), (spikes, columns)),
    }
    wanted = np.asarray(products["float32 weights"][0](*products["float32 weights"][1]))
    calls = {}
    for name, (product, operands) in products.items():
        jitted = jax.jit(product)
        if name != "bfloat16" and not np.array_equal(jitted(*operands), wanted):
            raise RuntimeError(f"{name}: differs from the float32 product.")
        calls[name] = lambda jitted=jitted, operands=operands: jitted(*operands)
    load = mark_load()
    spreads = ratios(interleave(calls, rounds=rounds), "float32 weights")
    return {
        "shape": [ROWS, INPUTS, OUTPUTS],
        "rounds": rounds,
        "cores busy with other work": round(load.others(), 2),
        "rows": {name: spread.quantiles(4) for name, spread in spreads.items()},
    }


def int8_product(spikes: jax.Array, signs: jax.Array) -> jax.Array:
    """Returns ``spikes @ weights`` from int8 operands, summed in int32."""
    weights = jnp.where(signs, jnp.int8(1), jnp.int8(-1))
    return jnp.matmul(spikes.astype(jnp.int8), weights, preferred_element_type=jnp.int32).astype(jnp.float32)


def popcount_product(spikes: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns ``spikes @ weights`` from bits.

    Args:
      spikes: 0 or 1, of shape ``(rows, inputs)``; packed here, as they are made anew at each time step.
      columns: the signs of each output, as words: uint32 of shape ``(outputs, inputs / 32)``.
    """
    rows = words(spikes > 0)
    fired = jax.lax.population_count(rows).sum(-1, dtype=jnp.int32)
    both = jax.lax.population_count(rows[:, None] & columns[None]).sum(-1, dtype=jnp.int32)
    return (2 * both - fired[:, None]).astype(jnp.float32)


def words(bits: jax.Array) -> jax.Array:
    """Packs booleans along the last axis, whose size must be a multiple of 32, into uint32."""
    octets = jnp.packbits(bits, axis=-1)
    return jax.lax.bitcast_convert_type(octets.reshape(*octets.shape[:-1], -1, 4), jnp.uint32)


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    rows, inputs, outputs = result["shape"]
    yield f"{rows} x {inputs} spikes times {inputs} x {outputs} signs; all but bfloat16 give identical numbers."
    found = [(name, ratio_text(spread)) for name, spread in result["rows"].items()]
    yield table(("product", "time, ratio to float32"), found)
    yield load_text(result)
