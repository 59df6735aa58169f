"""Rules without latent weights: BSO and T-BSO with the paper's settings (section 5) and with ours, and Bop."""

import dataclasses
from typing import ClassVar

import optax

import bsojax
from bsojax.optim import window_schedule
from experiments.rules.rule import THROUGH_TIME, MomentumDtype, Rule


@dataclasses.dataclass(frozen=True)
class Bso(Rule):
    """BSO with constant settings, whatever the length of the run."""

    label = "BSO, paper"
    reset: ClassVar[bool] = False

    threshold: float = 5e-7
    """A sign flips where the momentum against it is larger than this, in units of the gradient."""
    b1: float = 0.999
    """Decay of the momentum, an update."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype of the momentum at rest."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del updates, num_steps
        return bsojax.bso(
            self.threshold, self.b1, reset_on_flip=self.reset, momentum_dtype=self.momentum_dtype, seed=seed
        )


class BsoReset(Bso):
    """BSO whose momentum is set to zero where a sign flips."""

    label = "BSO with reset, paper"
    reset = True


@dataclasses.dataclass(frozen=True)
class TBso(Rule):
    """T-BSO with constant settings, whatever the length of the run."""

    label = "T-BSO, paper"

    threshold: float = 5e-7
    """A sign flips where the momentum against it is larger than this, in units of the gradient's root mean square."""
    b1: float = 0.999
    """Decay of the momentum, an update."""
    b2: float = 0.99999
    """Decay of each time step's second moment, a batch."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype of the momentum at rest."""

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
    """Decay of the momentum at the start, an update."""
    growth: float = 0.2
    """Updates by which the momentum's window, 1 / (1 - b1), grows an update."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype of the momentum at rest."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del num_steps
        b1 = window_schedule(self.b1, self.growth, updates)
        threshold = bsojax.noise_threshold(b1, self.threshold / bsojax.noise_threshold(self.b1, 1.0))
        return bsojax.bso(threshold, b1, reset_on_flip=self.reset, momentum_dtype=self.momentum_dtype, seed=seed)


class CalibratedBsoReset(CalibratedBso):
    """The same with a momentum that is set to zero where a sign flips."""

    label = "BSO with reset, calibrated"
    reset = True


@dataclasses.dataclass(frozen=True)
class CalibratedTBso(Rule):
    """Our recipe (see bsojax.calibrated): what a run takes unless it asks for something else."""

    label = "T-BSO, calibrated"

    threshold: float = 0.1
    """The recipe's c: a sign flips where the momentum against it is larger than so many standard deviations of the
    momentum's noise."""
    b1: float = 0.9
    """Decay of the momentum at the start, an update."""
    growth: float = 0.2
    """Updates by which the momentum's window, 1 / (1 - b1), grows an update."""
    b2: float = 0.99
    """Decay of each time step's second moment, a batch."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype of the momentum at rest."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        return bsojax.calibrated(
            num_steps,
            updates,
            b1=self.b1,
            growth=self.growth,
            c=self.threshold,
            b2=self.b2,
            momentum_dtype=self.momentum_dtype,
            seed=seed,
        )


@dataclasses.dataclass(frozen=True)
class Bop(Rule):
    """Bop (Helwegen et al., 2019) with its authors' settings, on the gradient through time."""

    label = "Bop"
    through_time = True
    refuses = THROUGH_TIME

    threshold: float = 1e-8
    """A sign flips where the momentum against it is larger than this, in units of the gradient."""
    b1: float = 1 - 1e-4
    """Decay of the momentum, an update: 1 less what its authors call the adaptivity."""
    momentum_dtype: MomentumDtype = "float32"
    """Dtype of the momentum at rest."""

    def flip_optimizer(self, updates: int, num_steps: int, seed: int) -> optax.GradientTransformation:
        del updates, num_steps
        return bsojax.bso(self.threshold, self.b1, momentum_dtype=self.momentum_dtype, seed=seed)
