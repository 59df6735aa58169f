"""Other authors' rules without latent weights: BOAT, SGDAT and BOLD, online, on gradients scaled by channel."""

import abc
import dataclasses

import optax

import bsojax
from experiments.rivals import accumulators
from experiments.rules.rule import Rule


@dataclasses.dataclass(frozen=True)
class Accumulated(Rule):
    """A sum of gradients behind each sign, whose learning rate ends at 0 (cosine).

    As for the rules of ours, gradients are first divided by each channel's root mean square, so that a
    threshold means the same in every layer.
    """

    threshold: float = 30.0
    """A sign flips if the sum of gradients against it is larger than this, in units of a gradient's size."""

    @abc.abstractmethod
    def bound(self) -> accumulators.Bound:
        """Returns what the sum must pass."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del num_steps, seed
        flip = accumulators.accumulator(self.bound(), optax.cosine_decay_schedule(1.0, updates))
        return optax.chain(bsojax.scale_by_channel_rms(), flip)


@dataclasses.dataclass(frozen=True)
class Boat(Accumulated):
    """BOAT: the sum against the root of its own second moment."""

    label = "BOAT"

    threshold: float = 3.0
    """A sign flips if the sum of gradients against it exceeds this multiple of the root of the sum of their squares."""

    def bound(self) -> accumulators.Bound:
        return accumulators.OwnSecondMoment(self.threshold)


@dataclasses.dataclass(frozen=True)
class Sgdat(Accumulated):
    """SGDAT (Shan et al., 2023): each flip of a weight raises its threshold."""

    label = "SGDAT"

    rise: float = 0.1
    """Fraction of the first threshold by which each flip of a weight raises its own threshold."""

    def bound(self) -> accumulators.Bound:
        return accumulators.FlipCount(self.threshold, self.rise)


class Bold(Accumulated):
    """BOLD (Nguyen et al., 2024): the sum decays by the fraction of its layer that flipped."""

    label = "BOLD"

    def bound(self) -> accumulators.Bound:
        return accumulators.ShareFlipped(self.threshold)
