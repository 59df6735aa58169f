"""The devices of a run: each batch is split over them, in one process or in several."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from experiments.config import Session
from experiments.data.splits import MemorySplit, Split

CONNECT_SECONDS = 120
"""How long the processes of a run wait for each other at its start."""

HEARTBEAT_SECONDS = 100
"""How long a process may be silent before the others consider it dead and end."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """Where a run computes; equal in all processes of a run.

    Attributes:
      mesh: the devices that each batch is split over; None: a single one, JAX's default.
    """

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """The number of devices."""
        return 1 if self.mesh is None else self.mesh.devices.size

    def everywhere(self, tree: Any) -> Any:
        """Returns the arrays of a tree, the same in all processes, in full on every device."""
        return tree if self.mesh is None else _put(tree, NamedSharding(self.mesh, P()))

    def feed(
        self, split: Split, batch_size: int, key: jax.Array | None = None, first: int = 0
    ) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Yields the batches of a split as ``split.batches`` does, as arrays of all devices.

        Each of several processes reads only its own part of each batch, unless the split lies in memory.
        """
        if self.mesh is None:
            yield from split.batches(batch_size, key, first)
            return
        by_example, parts = NamedSharding(self.mesh, P(*self.mesh.axis_names)), jax.process_count()
        if parts == 1 or isinstance(split, MemorySplit) or batch_size % self.count:
            for batch in split.batches(batch_size, key, first):
                yield _put(batch, by_example) if len(batch[1]) % self.count == 0 else self.everywhere(batch)
            return
        remainder = len(split) % batch_size if key is None else 0
        whole = split.take(np.arange(len(split) - remainder)) if remainder else split
        for x, y in whole.batches(batch_size, key, first, (jax.process_index(), parts)):
            local = (np.asarray(x), np.asarray(y))
            yield tuple(jax.make_array_from_process_local_data(by_example, leaf) for leaf in local)
        if remainder:
            rest = split.take(np.arange(len(split) - remainder, len(split)))
            yield from map(self.everywhere, rest.batches(remainder))

    def shardings(self, state: bsojax.TrainState, split_optimizer: bool) -> Any:
        """Returns where the leaves of a state lie, as jit and device_put take it; None: placement is left to JAX."""
        return None if self.mesh is None else bsojax.state_shardings(state, self.mesh, split_optimizer=split_optimizer)

    def split(self, tree: Any) -> Any:
        """Inside jit: asks for arrays with a leading axis of examples to be split over the devices, if they can be."""
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, P(*self.mesh.axis_names))

        def constrained(leaf: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(leaf, sharding) if len(leaf) % self.count == 0 else leaf

        return jax.tree.map(constrained, tree)

    def place(self, state: bsojax.TrainState, shardings: Any) -> bsojax.TrainState:
        """Returns a state, the same in all processes, with its leaves where they belong."""
        return state if shardings is None else _put(state, shardings)


def start_processes(session: Session) -> None:
    """Joins the other processes of a run; call it before any other use of JAX. Does nothing for a single process.

    Raises:
      ConnectionError: the others did not join in time.
    """
    if session.coordinator is None:
        return
    patience: Any = {
        "initialization_timeout": CONNECT_SECONDS,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
    }
    try:
        if session.coordinator == "auto":
            jax.distributed.initialize(**patience)
        else:
            jax.distributed.initialize(session.coordinator, session.num_processes, session.process_id, **patience)
    except (RuntimeError, ValueError) as error:
        raise ConnectionError(
            f"--coordinator: process {session.process_id} could not join the others through {session.coordinator} "
            f"within {CONNECT_SECONDS} s ({str(error).splitlines()[0]}); start all of them, with the same address."
        ) from error


def find_devices(session: Session, batch_size: int) -> Devices:
    """Returns the devices that the settings ask for.

    Raises:
      ValueError: there are fewer, or a batch cannot be split evenly over them.
    """
    known = jax.devices()
    if session.devices is not None and jax.process_count() > 1:
        raise ValueError("--devices: a run of several processes uses all devices; omit the flag.")
    count = session.devices or len(known)
    if (
        session.devices is None
        and jax.process_count() == 1
        and getattr(jax.config, "jax_default_device", None) is not None
    ):
        count = 1
    if count > len(known):
        raise ValueError(f"--devices: there are {len(known)}, not {count}.")
    if batch_size % count:
        raise ValueError(
            f"--batch-size: {batch_size} examples cannot be split evenly over {count} devices; choose a multiple of "
            f"{count}, or a number of --devices that divides it."
        )
    return Devices() if count == 1 else Devices(bsojax.data_mesh(known[:count]))


def is_first() -> bool:
    """Whether this is the process that writes the run's folder and speaks to the user."""
    return jax.process_index() == 0


def agreed() -> Callable[[bool], bool]:
    """Returns a function that says whether any process of the run says yes; all call it at the same places."""
    if jax.process_count() == 1:
        return bool
    return lambda mine: bool(multihost_utils.process_allgather(np.array(mine)).any())


def gathered(leaf: jax.Array) -> np.ndarray:
    """Returns all of an array that spans the processes of a run; all call it at the same places."""
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def wait_for_all(place: str) -> None:
    """Returns when every process of the run is at the place of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def _put(tree: Any, shardings: Any) -> Any:
    if jax.process_count() > 1:
        tree = jax.device_get(tree)  # arrays of one process cannot be moved to those of another, numpy arrays can
    return jax.device_put(tree, shardings)
