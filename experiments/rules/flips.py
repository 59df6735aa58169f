"""Rules without latent weights: BSO and T-BSO with the paper's settings (section 5) and with ours, and Bop."""

import dataclasses
from typing import ClassVar, Literal

import optax

import bsojax
from bsojax.optim import window_schedule
from experiments.rules.rule import THROUGH_TIME, MomentumDtype, Rule

Anneal = Literal["linear", "cosine", "none"]


def annealing(name: Anneal, updates: int) -> optax.Schedule | None:
    """Returns what a recipe takes for its anneal; None, the recipe's own, falls evenly to 0."""
    if name == "cosine":
        return optax.cosine_decay_schedule(1.0, updates)
    return None if name == "linear" else optax.constant_schedule(1.0)


@dataclasses.dataclass(frozen=True)
class Bso(Rule):
    """BSO with constant settings, for runs of any length."""

    label = "BSO, paper"
    reset: ClassVar[bool] = False

    threshold: float = 5e-7
    """A sign flips if the momentum against it is larger than this, in units of the gradient."""
    b1: float = 0.999
    """Decay of the momentum per update."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del updates, num_steps
        return bsojax.bso(
            self.threshold, self.b1, reset_on_flip=self.reset, momentum_dtype=self.momentum_dtype, seed=seed
        )


class BsoReset(Bso):
    """BSO whose momentum is set to zero when a sign flips."""

    label = "BSO with reset, paper"
    reset = True


@dataclasses.dataclass(frozen=True)
class TBso(Rule):
    """T-BSO with constant settings, for runs of any length."""

    label = "T-BSO, paper"

    threshold: float = 5e-7
    """A sign flips if the momentum against it is larger than this, in units of the gradient's root mean square."""
    b1: float = 0.999
    """Decay of the momentum per update."""
    b2: float = 0.99999
    """Decay of each time step's second moment per batch."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del updates
        return bsojax.t_bso(self.threshold, num_steps, self.b1, self.b2, momentum_dtype=self.momentum_dtype, seed=seed)


@dataclasses.dataclass(frozen=True)
class CalibratedBso(Rule):
    """BSO with a momentum whose window grows with the run (see window_schedule) and a threshold that follows it."""

    label = "BSO, calibrated"
    reset: ClassVar[bool] = False

    threshold: float = 5e-7
    """The threshold at the start, in units of the gradient; it shrinks as the momentum's noise does."""
    b1: float = 0.9
    """Initial decay of the momentum per update."""
    growth: float = 0.2
    """Updates by which the momentum's window, 1 / (1 - b1), grows per update."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del num_steps
        b1 = window_schedule(self.b1, self.growth, updates)
        threshold = bsojax.noise_threshold(b1, self.threshold / bsojax.noise_threshold(self.b1, 1.0))
        return bsojax.bso(threshold, b1, reset_on_flip=self.reset, momentum_dtype=self.momentum_dtype, seed=seed)


class CalibratedBsoReset(CalibratedBso):
    """The same with a momentum that is set to zero when a sign flips."""

    label = "BSO with reset, calibrated"
    reset = True


@dataclasses.dataclass(frozen=True)
class CalibratedTBso(Rule):
    """Our recipe (see bsojax.calibrated): what a run uses by default."""

    label = "T-BSO, calibrated"

    threshold: float = 0.0
    """The recipe's c: a sign flips if the momentum against it exceeds this many standard deviations of the momentum's
    noise."""
    b1: float = 0.9
    """Initial decay of the momentum per update."""
    growth: float = 0.5
    """Updates by which the momentum's window, 1 / (1 - b1), grows per update."""
    b2: float = 0.99
    """Decay of each time step's second moment per batch."""
    rms_decay: float = 0.0
    """Decay of the channels' root mean square per update."""
    anneal: Anneal = "linear"
    """How 1 - b1 falls to 0 at the end of the run, in addition to the growth of the window."""
    deploy_c: float = 0.3
    """A sign is deployed where the momentum exceeds this many such deviations; 0: trained signs are deployed."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        return bsojax.calibrated(
            num_steps,
            updates,
            b1=self.b1,
            growth=self.growth,
            c=self.threshold,
            b2=self.b2,
            rms_decay=self.rms_decay,
            anneal=annealing(self.anneal, updates),
            deploy_c=self.deploy_c or None,
            momentum_dtype=self.momentum_dtype,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Counter(Rule):
    """A saturating counter per weight instead of a momentum (see bsojax.calibrated_counter)."""

    label = "counter"

    bits: int = 6
    """Bits per weight in training, including its sign."""
    rho: float = 1.0
    """The size of the counter's steps, relative to steps that forget as fast as the momentum of t-bso does."""
    growth: float = 1.0
    """Updates by which the window of such a momentum grows per update."""
    rms_decay: float = 0.0
    """Decay of the channels' root mean square per update."""
    anneal: Anneal = "linear"
    """How steps fall to 0 at the end of the run."""
    deploy_c: float = 0.15
    """A sign is deployed where its counter is further from zero than this fraction of the scale; 0: as trained."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del num_steps
        return bsojax.calibrated_counter(
            updates,
            self.bits,
            rho=self.rho,
            growth=self.growth,
            rms_decay=self.rms_decay,
            anneal=annealing(self.anneal, updates),
            deploy_c=self.deploy_c or None,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Bop(Rule):
    """Bop (Helwegen et al., 2019) with its authors' settings, on the gradient through time."""

    label = "Bop"
    through_time = True
    refuses = THROUGH_TIME

    threshold: float = 1e-8
    """A sign flips if the momentum against it is larger than this, in units of the gradient."""
    b1: float = 1 - 1e-4
    """Decay of the momentum per update: 1 minus what its authors call the adaptivity."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype in which the momentum is stored."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del updates, num_steps
        return bsojax.bso(self.threshold, self.b1, momentum_dtype=self.momentum_dtype, seed=seed)
