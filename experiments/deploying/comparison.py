"""A deployed network compared with JAX on test data, and its C code with the NumPy reference."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import numpy as np

import bsojax
from bsojax.deploy import Agreement, IntegerNetwork
from experiments.deploying.inputs import Grid, seen
from experiments.deploying.trained import Trained

Outcome = tuple[np.ndarray, Mapping[str, np.ndarray]]
"""Logits, and spikes by layer."""

FLAGS = ("-O3", "-march=native")
"""What C code is compiled with."""

SPIKES = 2**27
"""Spikes that are compared at once."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results on test data.

    Attributes:
      examples: their number.
      jax: accuracy of make_eval_step on inputs as the network was trained for.
      jax_rounded: the same on rounded inputs; None: no input was rounded.
      whole: accuracy of the integer network.
      agreement: of its predictions and spikes with those of JAX on the same inputs.
      is_compiled: whether the network ran as C code.
      logits_differ, spikes_differ: how many differ between C and the NumPy reference; None: not compared.
    """

    examples: int
    jax: float
    jax_rounded: float | None
    whole: float
    agreement: Agreement
    is_compiled: bool
    logits_differ: int | None = None
    spikes_differ: int | None = None

    @property
    def is_equal(self) -> bool:
        """Whether C equals the reference bit for bit, as far as it was compared."""
        return not self.logits_differ and not self.spikes_differ


def compare(
    found: Trained, grid: Grid, network: IntegerNetwork, *, is_compiled: bool, check: bool, examples: int | None = None
) -> Comparison:
    """Runs a network and its model on test data.

    Args:
      found: the trained network.
      grid: how inputs become integers.
      network: its integer network.
      is_compiled: whether it runs as C code, which needs a compiler; otherwise in NumPy, which is slow.
      check: whether C is compared with NumPy.
      examples: how many test examples, from the first on; None: all.

    Raises:
      RuntimeError: the compiler, or the program that it made, fails.
    """
    data, steps = found.data, found.config.num_steps
    count = min(len(data.test), examples or len(data.test))
    judge = jax.jit(bsojax.make_eval_step(found.model, steps))
    axis, size = int(network.is_sequence), _chunk(network)
    right = {"jax": 0.0, "rounded": 0.0, "whole": 0.0}
    agreement, differ = Agreement(0, 0, 0, 0), (0, 0)
    for inputs, labels in seen(data, data.test.take(np.arange(count))):
        whole = grid.whole(inputs)
        right["jax"] += len(labels) * float(judge(found.state, inputs, labels)["accuracy"])
        if not grid.is_exact:
            right["rounded"] += len(labels) * float(judge(found.state, grid.real(whole), labels)["accuracy"])
        for first in range(0, len(labels), size):
            part, answers = _part(whole, first, size, axis), labels[first : first + size]
            outcome = network.run_c(part, flags=FLAGS) if is_compiled else network.run(part)
            if check and is_compiled:
                differ = _differing(outcome, network.run(part), differ)
            right["whole"] += int(np.sum(outcome[0].argmax(1) == answers))
            agreement += network.agreement(found.model, found.state, part, outcome=outcome)
    return Comparison(
        count,
        right["jax"] / count,
        None if grid.is_exact else right["rounded"] / count,
        right["whole"] / count,
        agreement,
        is_compiled,
        *(differ if check and is_compiled else ()),
    )


def _chunk(network: IntegerNetwork) -> int:
    """Examples whose spikes are compared at once."""
    layers = [layer for layer in network.report().layers if layer.membrane_share is not None]
    each = network.num_steps * sum(math.prod(layer.shape) for layer in layers)
    return max(1, SPIKES // max(1, each))


def _part(x: np.ndarray, first: int, size: int, axis: int) -> np.ndarray:
    return np.take(x, np.arange(first, min(first + size, x.shape[axis])), axis)


def _differing(one: Outcome, other: Outcome, before: tuple[int, int]) -> tuple[int, int]:
    """How many logits and spikes of two outcomes differ, added to earlier counts."""
    logits = int(np.sum(one[0] != other[0]))
    spikes = sum(int(np.sum(one[1][name] != other[1][name])) for name in other[1])
    return before[0] + logits, before[1] + spikes
