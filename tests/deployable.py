"""Networks that can be deployed, one for each thing that they do differently, with statistics of random data."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

import bsojax
from bsojax.deploy import IntegerNetwork, integer_network

partial = functools.partial
models = bsojax.models
NUM_STEPS = 3


class Branches(nn.Module):
    """Groups, dilation, strides, VALID, max pooling, constants between layers, sums, thresholds a channel."""

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.BinaryConv(24, (3, 3), padding="VALID", strides=2, scale=bsojax.rsqrt_fan_in)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        s = bsojax.max_pool(bsojax.LIF(tau=3.0, v_reset=-0.25, v_threshold=0.8)(x), 2)
        grouped = bsojax.BinaryConv(24, (3, 3), feature_group_count=2, kernel_dilation=2, scale=bsojax.rsqrt_fan_in)(s)
        z = bsojax.Affine()(grouped) * 0.5 + 0.25
        left, right = bsojax.PLIF(v_threshold=0.3, decay_input=True)(z), bsojax.IF(v_threshold=0.2)(z - grouped / 3)
        joined = bsojax.Dense(16)(bsojax.flatten(left)) + bsojax.Dense(16)(bsojax.flatten(right))
        return bsojax.BinaryDense(7)(bsojax.LIF(v_threshold=tuple(np.linspace(0.1, 0.6, 16)))(joined))


class Separable(nn.Module):
    """Two synapses without neurons between, and a norm after pooling."""

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.avg_pool(bsojax.Conv(8, (3, 3))(x), 2), train))
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinarySeparableConv(33, (3, 3))(x), train))
        return bsojax.Dense(5)(bsojax.global_avg_pool(x))


class Chains(nn.Module):
    """Sums over currents that are summed again, pooled, flattened, and read twice."""

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.LIF()(bsojax.BatchNorm()(bsojax.Conv(8, (3, 3))(x), train))
        x = bsojax.BinaryConv(8, (3, 3))(bsojax.BatchNorm()(bsojax.BinaryConv(8, (3, 3))(x), train))
        x = bsojax.BinaryConv(8, (2, 2), strides=2)(x + bsojax.avg_pool(x, 1))
        return bsojax.Dense(5)(bsojax.LIF()(bsojax.BatchNorm()(bsojax.flatten(x), train)))


class Signals(nn.Module):
    """Convolutions of signals, and a readout that normalises."""

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        x = bsojax.Conv(8, (5,), padding="CAUSAL")(x)
        x = bsojax.avg_pool(bsojax.LIF()(bsojax.BatchNorm()(x, train)), 3)
        x = bsojax.LIF(tau=1.0)(bsojax.BatchNorm()(bsojax.BinaryConv(8, 3, strides=2)(x), train))
        norm = bsojax.BatchNorm(num_steps=NUM_STEPS)
        return norm(bsojax.Dense(5)(bsojax.flatten(x)), train, time_step)


class Case(NamedTuple):
    """A network and its inputs.

    Attributes:
      model, shape: the network and the shape of a frame.
      is_sequence: whether each time step has a frame.
      low, high: the least and the largest whole input, the latter also the scale.
      options: of integer_network.
    """

    model: Any
    shape: tuple[int, ...]
    is_sequence: bool = False
    low: int = 0
    high: int = 255
    options: dict[str, Any] = {}  # noqa: RUF012


HARD = partial(bsojax.LIF, tau=1.7, v_reset=0.0, decay_input=True)
PER_STEP = partial(bsojax.BatchNorm, num_steps=NUM_STEPS)
CASES = {
    "VGG": Case(models.SpikingVGG(channels=(16, 33, "M", 64), num_classes=4, norm=PER_STEP), (8, 9, 1), high=16),
    "VGG, binary ends": Case(models.SpikingVGG(channels=(8, "M", 64), num_classes=4, binary_ends=True), (5, 5, 3)),
    "VGG, few digits": Case(models.SpikingVGG(channels=(32,), num_classes=4, binary_ends=True), (4, 5, 40), high=3),
    "VGG, sequence": Case(
        models.SpikingVGG(channels=(8, "M", 16, "M", 70), num_classes=4, neuron=HARD), (9, 7, 2), True, high=4
    ),
    "VGG, sequence, 16 bits": Case(
        models.SpikingVGG(channels=(8, "M", 16), num_classes=4, norm=PER_STEP), (6, 6, 2), True, -9, 9,
        {"membrane_bits": 16},
    ),
    "MLP": Case(models.SpikingMLP(features=(32, 48), num_classes=4), (6, 5, 2)),
    "MLP, binary, sequence": Case(
        models.SpikingMLP(features=(70, 270), num_classes=12, binary_ends=True), (20,), True, high=1
    ),
    "MLP, spectra": Case(models.SpikingMLP(features=(20,), num_classes=4, norm=bsojax.Affine), (9,), True, -900, 900),
    "ResNet": Case(
        models.SpikingResNet(num_classes=5, stages=(1, 1), width=8, stem=models.cifar_stem, norm=PER_STEP), (9, 9, 3)
    ),
    "ResNet, large stem": Case(models.SpikingResNet(num_classes=5, stages=(1, 1), width=4), (17, 17, 3)),
    "branches": Case(Branches(), (15, 13, 3)),
    "separable": Case(Separable(), (8, 8, 2), options={"weight_bits": 8}),
    "chains": Case(Chains(), (6, 6, 2)),
    "signals": Case(Signals(), (31, 3)),
}  # fmt: skip


def state_of(case: Case, seed: int = 0) -> tuple[bsojax.TrainState, np.ndarray]:
    """Returns a state with random parameters and the statistics of random data, and that data, whole."""
    random = np.random.default_rng(seed)
    lead = (NUM_STEPS, 8) if case.is_sequence else (8,)
    x = random.integers(case.low, case.high + 1, (*lead, *case.shape))
    inputs = (x / case.high).astype(np.float32)
    state = bsojax.init(case.model, optax.identity(), jax.random.key(seed), inputs[0] if case.is_sequence else inputs)

    def moved(leaf):
        return leaf + 0.3 * random.normal(size=leaf.shape).astype(np.float32) * np.abs(leaf).mean()

    state = dataclasses.replace(state, params=jax.tree.map(moved, state.params))
    if state.batch_stats:
        state = bsojax.refresh_statistics(case.model, state, [inputs], NUM_STEPS)
    return state, x


def network_of(case: Case, seed: int = 0) -> tuple[IntegerNetwork, np.ndarray]:
    """Returns a network in whole numbers, and inputs for it."""
    state, x = state_of(case, seed)
    inputs = (x / case.high).astype(np.float32)
    scale = {"input_scale": case.high, "input_max": case.high, "input_min": case.low}
    return integer_network(case.model, state, inputs, NUM_STEPS, **scale, **case.options), x
