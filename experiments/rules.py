"""What trains the signs: our optimizers and their rivals behind one flag, in one loop and on the same models."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import optax
from jax.sharding import Mesh

import bsojax
from experiments import presets
from experiments.config import Config, OptimizerName
from experiments.networks import TRACES
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step

MakeFlip = Callable[[Config, int], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A way to train signs.

    Attributes:
      label: what tables call it.
      make_flip: a function of the config and the number of updates of the run that returns the signs' optimizer.
      trace: the presynaptic trace of its gradient, by its name in TRACES.
      through_time: whether the gradient is backpropagated through the whole sequence, for one update a batch.
    """

    label: str
    make_flip: MakeFlip
    trace: str = "ottt"
    through_time: bool = False


def make_optimizer(config: Config, batches: int) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of a config for a run of so many batches."""
    rule = RULES[config.optimizer]
    updates = batches * updates_per_batch(config)
    flip = bsojax.bso(threshold=math.inf) if config.frozen else rule.make_flip(config, updates)
    real = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, updates))
    return bsojax.split_optimizer(flip=flip, real=real)


def make_neuron(config: Config) -> Callable[..., nn.Module]:
    """Returns what makes the neurons that the config's rule needs.

    Raises:
      ValueError: a trace is asked for, and the rule differentiates through time.
    """
    rule = RULES[config.optimizer]
    if rule.through_time:
        if config.trace is not None:
            raise ValueError(f"--trace: '{config.optimizer}' differentiates through time; leave the trace out.")
        return ThroughTimeLIF
    return functools.partial(bsojax.LIF, trace=TRACES[config.trace or rule.trace])


def make_step(
    config: Config, model: nn.Module, tx: optax.GradientTransformation, mesh: Mesh | None = None
) -> Callable[..., Any]:
    """Returns the training step of a config, on the devices of a mesh or on one.

    Raises:
      ValueError: some time steps only are to be backpropagated, and the rule differentiates through time.
    """
    if not RULES[config.optimizer].through_time:
        return bsojax.make_train_step(model, tx, config.num_steps, backward_steps=config.backward_steps, mesh=mesh)
    if config.backward_steps is not None:
        raise ValueError(f"--backward-steps: '{config.optimizer}' differentiates through time; leave the flag out.")
    return make_bptt_step(model, tx, config.num_steps)


def label_of(config: Config) -> str:
    """What tables call the rule of a config: its name, and the preset where it has one."""
    if config.frozen:
        return "frozen signs"
    rule = RULES[config.optimizer]
    return f"{rule.label}, {config.preset}" if rule.make_flip is presets.flip_optimizer else rule.label


def updates_per_batch(config: Config) -> int:
    """How often the optimizer is called a batch."""
    return 1 if RULES[config.optimizer].through_time else config.num_steps


def _latent(inner: Callable[[optax.Schedule], optax.GradientTransformation], learning_rate: float) -> MakeFlip:
    def make_flip(config: Config, updates: int) -> optax.GradientTransformation:
        if config.momentum_dtype != "float32":
            raise ValueError(
                f"--momentum-dtype: '{config.optimizer}' trains latent weights, whose moments are float32; leave the "
                "flag out."
            )
        if config.packed:
            raise ValueError(f"--packed: '{config.optimizer}' keeps latent weights beside the signs; leave it out.")
        start = learning_rate if config.latent_learning_rate is None else config.latent_learning_rate
        return latent_weights(inner(optax.cosine_decay_schedule(start, updates)), seed=config.seed)

    return make_flip


def _bop(config: Config, updates: int) -> optax.GradientTransformation:
    """Bop (Helwegen et al., 2019): an adaptivity of 1e-4 and a threshold of 1e-8 are its authors' settings."""
    threshold = 1e-8 if config.threshold is None else config.threshold
    b1 = 1 - 1e-4 if config.b1 is None else config.b1
    return bsojax.bso(threshold, b1, **presets.at_rest(config))


_sgd = functools.partial(optax.sgd, momentum=0.9)

RULES: dict[OptimizerName, Rule] = {
    "bso": Rule("BSO", presets.flip_optimizer),
    "bso-reset": Rule("BSO with reset", presets.flip_optimizer),
    "t-bso": Rule("T-BSO", presets.flip_optimizer),
    "bop": Rule("Bop", _bop, through_time=True),
    "bptt-sgd": Rule("BPTT, SGD", _latent(_sgd, 1.0), through_time=True),
    "bptt-adam": Rule("BPTT, Adam", _latent(optax.adam, 1e-2), through_time=True),
    "ottt": Rule("OTTT", _latent(optax.adam, 1e-2)),
    "ndot": Rule("NDOT", _latent(optax.adam, 1e-2), trace="ndot"),
    "sltt": Rule("SLTT", _latent(optax.adam, 1e-2), trace="none"),
}
"""Every rule by its name on the command line."""
