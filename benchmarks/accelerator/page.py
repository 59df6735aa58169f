"""What docs/BENCHMARKS.md says of the accelerator, from what was measured so far."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.accelerator.jobs import FLIPS, KINDS, LIMITS, TF32, kind_and_batch
from experiments.pages import table

MIB = 2**20

RELEASED = "The released PyTorch code is reported at 2.9 GB for BSO and 3.1 GB for T-BSO (VGG-11, batch 128)."


def shares(limits: Mapping[str, float], job: str, found: Mapping[str, Any]) -> float | None:
    """Returns which share of the measured rate of matrix products a step's convolutions reach; None: it is unknown.

    Args:
      limits: what the job LIMITS measured.
      job: a job of a step.
      found: what it measured.
    """
    rate, reached = limits.get(limit_of(job)), found.get("FLOP/s of the convolutions")
    return reached / rate if rate and reached else None


def limit_of(job: str) -> str:
    """Returns the name of the limit of a step's products: kinds that are compared with ours have tf32's."""
    kind, _ = kind_and_batch(job)
    return next((name for name in list(KINDS)[:3] if name == kind), TF32)


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Gives out what the page says of a result."""
    measured = {job: found for job, found in result["jobs"].items() if "error" not in found}
    limits = measured.get(LIMITS, {})
    steps = {job: found for job, found in measured.items() if job not in (LIMITS, FLIPS)}
    rows = []
    for job, found in steps.items():
        kind, batch = kind_and_batch(job)
        share = shares(limits, job, found)
        rows.append(
            (
                kind,
                str(batch),
                f"{found['images a second']:,.0f}",
                f"{(found['peak bytes in use'] or found['compiled bytes']) / MIB:,.0f}",
                "" if share is None else f"{share:.0%}",
                ", ".join(f"{one['operation']} {one['share']:.0%}" for one in found["longest operations"][:3]),
            )
        )
    yield table(("step", "batch", "images a second", "peak MiB", "of the matrix rate", "longest operations"), rows)
    yield RELEASED
    if limits:
        yield table(("limit, measured", "a second"), [(name, f"{value:.3g}") for name, value in limits.items()])
    if limits and FLIPS in measured:
        flips = [
            (dtype, f"{1e3 * found['seconds']['median']:.3f}", f"{found['bytes/s'] / limits['memory, bytes/s']:.0%}")
            for dtype, found in measured[FLIPS].items()
        ]
        yield table(("momentum", "flip update, ms", "of the measured bandwidth"), flips)
    yield f"SpikingJelly: {result['SpikingJelly']}."
    for job, found in result["jobs"].items():
        if "error" in found:
            yield f"{job} failed: {found['error']}."
