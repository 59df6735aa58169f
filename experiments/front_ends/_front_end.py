"""What stands between a stored batch and the network: one form for evaluation, a seeded one for training."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How stored examples become what the network sees; both functions are traced into the compiled step.

    Attributes:
      train: a function of a key and a stored batch of shape ``(batch, ...)``: augmented float32 frames, either static,
        ``(batch, height, width, channels)``, or a sequence, ``(num_steps, batch, height, width, channels)``, or
        sequences of unequal length, as ``sequences.Padded``.
      evaluate: a function of only a stored batch: the same frames without augmentation.
      levels: the results of evaluate are whole numbers divided by this, from 0 to 1; None: they are not.
    """

    train: Callable[[jax.Array, jax.Array], Any]
    evaluate: Callable[[jax.Array], Any]
    levels: int | None = None
