"""Writes what JAX computes on, and the versions: ``python -m experiments.gpu_plan.device --output FILE``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.environment import environment, machine
from experiments.running.files import write_json


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m experiments.gpu_plan.device", description=__doc__)
    made.add_argument("--output", type=Path, required=True, help="the JSON file; each start adds to it")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; fails where the device cannot compute."""
    path = parser().parse_args(arguments).output
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    total = float(jax.jit(lambda x: (x @ x).sum())(jnp.ones((256, 256))))
    if total != 256.0**3:
        raise ValueError(f"the device gives {total} for the sum of a product of ones, not {256.0**3}.")
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    head = environment(("jax", "jaxlib", "flax", "optax", "chex", "numpy", "orbax-checkpoint"))
    starts.append(head | {"device": machine(), "device bytes": memory})
    write_json(path, {"starts": starts})
    print(f"{head['device']}, jax {head['versions']['jax']}", flush=True)


if __name__ == "__main__":
    main()
