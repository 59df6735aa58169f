"""Compiles one step for a TPU in its own process and prints what was read from it; the package's main runs it."""

import gzip
import json
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from benchmarks.hlo import Array, Program
from benchmarks.scaling import traffic
from benchmarks.tpu.jobs import Job
from benchmarks.tpu.steps import chips, lowered

LIMIT = "xla_tpu_max_hbm_size_mib"
"""The option of libtpu that says how much main memory a chip has."""

LARGE = 2**20
"""Bytes of an array from which on copies of it are reported."""


def measure(job: Job, text: Path | None = None) -> dict[str, Any]:
    """Returns what the compiler says of a job, as JSON values.

    Args:
      job: which step, for which chips.
      text: where the program is written to, gzipped; None: nowhere.
    """
    start = time.perf_counter()
    devices = chips(job)
    step = lowered(job, devices)
    about = {
        "chip": devices[0].device_kind,
        "hosts": len({device.process_index for device in devices}),
        "versions": {"jax": jax.__version__, "libtpu": version("libtpu")},
        "required": required(step),
    }
    if not job.to_the_end:
        return about
    middle = time.perf_counter()
    compiled = step.compile(compiler_options=None if job.limit is None else {LIMIT: str(job.limit)})
    end = time.perf_counter()
    written = compiled.as_text()
    if text is not None:
        text.write_bytes(gzip.compress(written.encode()))
    return {
        **about,
        "seconds": {"lower": round(middle - start, 1), "compile": round(end - middle, 1)},
        **sizes(compiled),
        **read(Program(written), job.chips),
    }


def required(step: Any) -> float | None:
    """Returns the MiB of temporaries without which a lowered step cannot be compiled; None where 1 is enough.

    The compiler tells when it has less: a chip with 1 MiB is one that it gives up on before it plans the memory.
    """
    try:
        step.compile(compiler_options={LIMIT: "1"})
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"required for HLO temporaries \(([\d.]+)([KMG]?)\)", str(error))
        if found is None:
            raise
        return float(found[1]) * {"": 2.0**-20, "K": 2.0**-10, "M": 1.0, "G": 2.0**10}[found[2]]
    return None


def sizes(compiled: Any) -> dict[str, Any]:
    """Returns the bytes in a chip's main memory, and the arithmetic, as the compiler counts them.

    It counts the body of a loop once, however often it runs: arithmetic is that of about one time step.
    """
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "alive at once": memory.peak_memory_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "flops": cost.get("flops"),
        "bytes accessed": cost.get("bytes accessed"),
    }


def read(program: Program, count: int) -> dict[str, Any]:
    """Returns what a program for this many chips exchanges, multiplies, copies and carries."""
    carried = program.carried()
    copies = [copy for copy in program.copies() if copy.in_loop and copy.after.padded >= LARGE]
    products: dict[str, int] = {}
    for product in program.products():
        name = f"{' x '.join(product.operands)} -> {product.result}"
        name += "" if product.precision == "default" else f", {product.precision} precision"
        products[name] = products.get(name, 0) + 1
    return {
        "collectives": collectives(program),
        "sent a time step": traffic(program, count),
        "products": products,
        "copies in the loop": [
            {"before": spelled(copy.before), "after": spelled(copy.after), "bytes": copy.after.padded}
            for copy in copies
        ],
        "carried": {
            "arrays": sum(array.size for array in carried),
            "in memory": sum(array.padded for array in carried),
            "on chip": sum(array.padded for array in carried if array.space),
        },
        "dtypes": sorted(program.dtypes()),
    }


def collectives(program: Program) -> list[dict[str, Any]]:
    """Returns the exchanges by kind and dtype, and whether they are made at each time step: how many, and bytes."""
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for one in program.collectives():
        for dtype in sorted({array.dtype for array in one.arrays}):
            key = (one.kind, dtype, one.in_loop)
            row = found.setdefault(key, {"kind": key[0], "dtype": dtype, "in loop": key[2], "count": 0, "bytes": 0})
            row["count"] += 1
            row["bytes"] += sum(array.size for array in one.arrays if array.dtype == dtype)
    return [found[key] for key in sorted(found)]


def spelled(array: Array) -> str:
    """Returns an array as XLA writes it, without its placement."""
    tile = f":T({','.join(map(str, array.tile))})" if array.tile else ""
    return f"{array.dtype}[{','.join(map(str, array.shape))}]{{{','.join(map(str, array.order))}{tile}}}"


if __name__ == "__main__":
    asked = Job(**json.loads(sys.argv[1]))
    print(json.dumps(measure(asked, Path(sys.argv[2]) if len(sys.argv) > 2 else None)))
