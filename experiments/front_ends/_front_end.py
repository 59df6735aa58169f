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
      evaluate: the same of a stored batch alone, without augmentation.
      sequence: whether what they give has a frame for each time step. Shapes alone do not tell: ``(8, 32, 20)`` is 32
        sequences of 8 frames, or 8 pictures.
      lengths: of sequences of unequal length, a function of a stored batch: how many frames each example has.
    """

    train: Callable[[jax.Array, jax.Array], Any]
    evaluate: Callable[[jax.Array], Any]
    sequence: bool = False
    lengths: Callable[[jax.Array], jax.Array] | None = None
