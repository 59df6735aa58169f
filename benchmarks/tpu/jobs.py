"""The compilations: which step, for which chips."""

import dataclasses
from collections.abc import Iterator
from typing import Any

ONE = "one chip"
JIT = "jit, replicated optimizer"
SPLIT = "jit, split optimizer"
SHARDED = "shard_map, gradients"
VOTES = "shard_map, votes"
PMAP = "pmap"
BPTT = "BPTT, latent weights, Adam"
DIGITS, VGG11 = "digits network", "VGG-11"
FLOAT, HALF = "float32", "bfloat16"


@dataclasses.dataclass(frozen=True)
class Job:
    """A compilation.

    Attributes:
      network: a name of ``scaling.JOBS``.
      way: how the step is made and spread over chips: one of the names above.
      topology: chips and their arrangement, as libtpu names them.
      chips: how many of them the program runs on, the first ones.
      slices: how many of such topologies a slower network joins.
      num_steps: T.
      dtype: of the activations.
      batch: examples of all chips together.
      packed: whether signs are held at one bit.
      momentum: its dtype.
      limit: MiB of main memory that the compiler is told a chip has; None: what it has.
      to_the_end: whether it is compiled; otherwise only what it needs is asked, which takes seconds.
    """

    network: str = DIGITS
    way: str = ONE
    topology: str = "v5e:2x2"
    chips: int = 1
    slices: int = 1
    num_steps: int = 4
    dtype: str = FLOAT
    batch: int = 128
    packed: bool = False
    momentum: str = FLOAT
    limit: int | None = None
    to_the_end: bool = True


def jobs() -> Iterator[Job]:
    """Gives out all compilations in the order in which they are made: the first cost least and answer most."""
    yield from on_one_chip(DIGITS)
    yield from on_many_chips(DIGITS)
    yield from the_papers_network()


def on_one_chip(network: str) -> Iterator[Job]:
    """Yields those of one chip: over T, of some kinds, and over what the state is held in."""
    for num_steps in (2, 32, 8):
        yield Job(network, num_steps=num_steps)
    for num_steps in (2, 32):
        yield Job(network, BPTT, num_steps=num_steps)
    yield Job(network, num_steps=2, dtype=HALF)
    yield Job(network, num_steps=2, dtype=HALF, packed=True, momentum="int8")
    for topology in ("v5p:2x2x1", "v6e:2x2"):
        yield Job(network, topology=topology, num_steps=2)


def on_many_chips(network: str) -> Iterator[Job]:
    """Yields those of a mesh of chips, by each way, over several hosts and over two slices."""
    for topology, chips in (("v5e:2x2", 1), ("v5e:2x2", 4), ("v5e:4x4", 16)):
        yield Job(network, JIT, topology, chips)
    for way in (PMAP, SHARDED, SPLIT, VOTES):
        yield Job(network, way, "v5e:2x2", 4)
    yield Job(network, JIT, "v5e:8x8", 64)
    yield Job(network, JIT, "v5p:2x2x4", 16)
    yield Job(network, JIT, "v6e:4x4", 16)
    yield Job(network, JIT, "v5e:4x4", 32, slices=2)


def the_papers_network() -> Iterator[Job]:
    """Yields those of the paper's network: first what needs seconds, then what needs minutes each."""
    small: dict[str, Any] = {"packed": True, "momentum": "int8"}
    for num_steps in (2, 32, 8):
        asked = Job(VGG11, num_steps=num_steps, to_the_end=False)
        yield asked
        yield dataclasses.replace(asked, dtype=HALF)
        yield dataclasses.replace(asked, way=BPTT)
    for dtype in (FLOAT, HALF):
        for num_steps in (2, 32):
            yield Job(VGG11, num_steps=num_steps, dtype=dtype, **small, to_the_end=False)
    yield Job(VGG11)
    yield Job(VGG11, limit=850)
    yield Job(VGG11, dtype=HALF, limit=420)
    yield Job(VGG11, dtype=HALF)
    yield Job(VGG11, SPLIT, "v5e:4x4", 16)
    yield Job(VGG11, num_steps=32)
    yield Job(VGG11, BPTT, num_steps=2)
    yield Job(VGG11, dtype=HALF, **small)
    yield Job(VGG11, JIT, "v5e:2x2", 4)
    yield Job(VGG11, topology="v6e:2x2")
