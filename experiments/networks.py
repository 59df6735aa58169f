"""From a config to the network."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

import bsojax
from experiments.config import Config

TRACES = {"ottt": bsojax.ottt, "ndot": bsojax.ndot, "ndot-released": bsojax.ndot_released, "none": None}


def make_model(config: Config, num_classes: int, neuron: Callable[..., nn.Module]) -> nn.Module:
    """Returns the network of a config, with the given neurons.

    Raises:
      ValueError: the network needs channels and the config has none.
    """
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "neuron": neuron,
        "norm": _norm(config),
        "scale": bsojax.rsqrt_fan_in if config.norm == "none" else bsojax.unit_scale,
    }
    stems = {"resnet18": bsojax.models.imagenet_stem, "resnet18-small": bsojax.models.cifar_stem}
    if config.network in stems:
        if config.binary_ends:
            raise ValueError(f"--binary-ends: '{config.network}' has real ends; choose vgg or mlp.")
        return bsojax.models.SpikingResNet(stem=stems[config.network], **options)
    if not config.channels:
        raise ValueError(f"channels: '{config.network}' needs the width of each layer; the config has none.")
    options |= {"binary_ends": config.binary_ends}
    if config.network == "rnn":
        return bsojax.models.SpikingRNN(features=[width for width in config.channels if width != "M"], **options)
    if config.network == "mlp":
        return bsojax.models.SpikingMLP(features=[width for width in config.channels if width != "M"], **options)
    return bsojax.models.SpikingVGG(channels=config.channels, **options)


def _norm(config: Config) -> Callable[..., nn.Module]:
    norms: dict[str, Callable[..., nn.Module]] = {
        "shared": bsojax.BatchNorm,
        "per-step": functools.partial(bsojax.BatchNorm, num_steps=config.num_steps),
        "across-time": bsojax.BatchRenorm,
        "fast": functools.partial(bsojax.BatchNorm, momentum=0.0),
        "none": bsojax.Affine,
    }
    return norms[config.norm]
