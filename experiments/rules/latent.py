"""Rules with a float32 latent weight behind every sign: through time, and online."""

import abc
import dataclasses
from typing import ClassVar

import optax

from experiments.rivals import latent_weights
from experiments.rules.rule import THROUGH_TIME, Rule

LATENT = {
    "momentum_dtype": "trains latent weights, whose moments are float32",
    "packed": "keeps latent weights beside the signs",
}
"""What a rule with latent weights refuses."""


@dataclasses.dataclass(frozen=True)
class Latent(Rule):
    """Latent weights, trained by an optimizer for real numbers whose learning rate ends at 0 (cosine)."""

    refuses: ClassVar = LATENT

    latent_learning_rate: float = 1e-2
    """Initial learning rate of the latent weights."""
    average: float = 0.0
    """Decay per update of an average of the latent weights, at whose signs the network is evaluated; 0: no average."""

    @abc.abstractmethod
    def inner(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Returns the optimizer of the latent weights."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del num_steps
        inner = self.inner(optax.cosine_decay_schedule(self.latent_learning_rate, updates))
        return latent_weights(inner, average=self.average, seed=seed)


class WithAdam(Latent):
    """Latent weights with Adam."""

    def inner(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adam(learning_rate)


@dataclasses.dataclass(frozen=True)
class BpttSgd(Latent):
    """Backpropagation through time, with SGD."""

    label = "BPTT, SGD"
    through_time = True
    refuses = LATENT | THROUGH_TIME

    latent_learning_rate: float = 1.0
    """Initial learning rate of the latent weights."""
    latent_momentum: float = 0.9
    """Momentum of the latent weights; 0: none is kept."""

    def inner(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=self.latent_momentum or None)


class BpttAdam(WithAdam):
    """Backpropagation through time."""

    label = "BPTT, Adam"
    through_time = True
    refuses = LATENT | THROUGH_TIME


class Ottt(WithAdam):
    """OTTT (Xiao et al., 2022)."""

    label = "OTTT"


class Ndot(WithAdam):
    """NDOT (Jiang et al., 2024)."""

    label = "NDOT"
    trace = "ndot"


class Sltt(WithAdam):
    """SLTT (Meng et al., 2023): no trace."""

    label = "SLTT"
    trace = "none"
