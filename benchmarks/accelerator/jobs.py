"""What is measured on an accelerator: each job in a process of its own, as a device keeps one peak a process."""

import dataclasses

LIMITS, FLIPS = "limits", "flip update"

FLOAT32 = "float32, highest precision"
TF32 = "float32, tf32 products"
BFLOAT16 = "bfloat16 activations"
PLAIN = "float32, tf32 products, automatic differentiation"
LATENT = "float32, tf32 products, BPTT, latent weights, Adam"

KINDS = {
    FLOAT32: ("float32", "highest"),
    TF32: ("float32", "default"),
    BFLOAT16: ("bfloat16", "default"),
    PLAIN: ("float32", "default"),
    LATENT: ("float32", "default"),
}
"""Kinds of steps: the dtype of the activations, and JAX's precision of products."""

ONLINE = (FLOAT32, TF32, BFLOAT16)
"""Our step, run at every batch size; the others are there to compare with, and run at the first."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      batches: batch sizes.
      kinds: which of KINDS.
      num_steps: T.
      image: height and width of the images.
      channels: of the network; the paper's VGG-11 without any.
      repeats: timed steps, at least 5.
      matrix: rows of the square matrices whose product is the measured matrix rate.
      weights: weights of the flip update that is compared with the measured memory bandwidth.
    """

    batches: tuple[int, ...] = (128, 512)
    kinds: tuple[str, ...] = tuple(KINDS)
    num_steps: int = 4
    image: int = 32
    channels: tuple[int | str, ...] = ()
    repeats: int = 20
    matrix: int = 8192
    weights: int = 64 * 2**20


def jobs(options: Options) -> list[str]:
    """Returns the names of all jobs, in the order in which they run."""
    steps = [
        step_job(kind, batch)
        for kind in options.kinds
        for batch in (options.batches if kind in ONLINE else options.batches[:1])
    ]
    return [LIMITS, *steps, FLIPS]


def step_job(kind: str, batch: int) -> str:
    """Returns the name of the job of a kind of step at a batch size."""
    return f"{kind}; batch {batch}"


def kind_and_batch(job: str) -> tuple[str, int]:
    """Returns the kind of step and the batch size of a job."""
    kind, _, batch = job.rpartition("; batch ")
    return kind, int(batch)
