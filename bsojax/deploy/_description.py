"""A description from which the library's networks are rebuilt, as plain JSON: known names, numbers, and no imports."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bsojax import models
from bsojax import nn as parts
from bsojax.nn import Surrogate

LAYERS = 256
"""The most layers of a described network: whoever reads a file builds them before it can be refused."""

_NETWORKS: dict[str, Any] = {
    "SpikingMLP": models.SpikingMLP,
    "SpikingResNet": models.SpikingResNet,
    "SpikingRNN": models.SpikingRNN,
    "SpikingVGG": models.SpikingVGG,
}
_MODULES: dict[str, Any] = {
    "Affine": parts.Affine,
    "ALIF": parts.ALIF,
    "BatchNorm": parts.BatchNorm,
    "BatchRenorm": parts.BatchRenorm,
    "CubaLIF": parts.CubaLIF,
    "IF": parts.IF,
    "LIF": parts.LIF,
    "PLIF": parts.PLIF,
}
_VALUES: dict[str, Any] = {
    "cifar_stem": models.cifar_stem,
    "imagenet_stem": models.imagenet_stem,
    "ndot": parts.ndot,
    "ndot_released": parts.ndot_released,
    "ottt": parts.ottt,
    "rsqrt_fan_in": parts.rsqrt_fan_in,
    "unit_scale": parts.unit_scale,
}
_SURROGATES: dict[str, Any] = {
    "atan": parts.atan,
    "erf": parts.erf,
    "piecewise_quadratic": parts.piecewise_quadratic,
    "rectangle": parts.rectangle,
    "sigmoid": parts.sigmoid,
    "softsign": parts.softsign,
}


class CannotBeSaidError(Exception):
    """A model, or a part of it, that does not belong to the library; the message says which."""


def described(model: nn.Module) -> dict[str, Any]:
    """Returns the description from which rebuilt makes the same network: JSON values, including today's defaults.

    Raises:
      CannotBeSaidError: the model is not one of bsojax.models, or has a part that has no name there.
    """
    name = _name_of(type(model), _NETWORKS)
    if name is None:
        raise CannotBeSaidError(f"{type(model).__name__} is not a network of bsojax.models")
    attributes = {name: _said(f"its {name}", getattr(model, name)) for name in _defaults(type(model))}
    description = {"network": name, "attributes": attributes}
    if layers(model) > LAYERS:
        raise CannotBeSaidError(f"it has more than {LAYERS} layers")
    return description


def rebuilt(description: Any) -> nn.Module:
    """Returns the network of a description from any source.

    Raises:
      ValueError: it does not describe a network, or one that this version does not know.
    """
    if not isinstance(description, dict) or description.keys() != {"network", "attributes"}:
        raise ValueError("no network is described")
    made = _made(description["network"], description["attributes"], _NETWORKS)
    model: nn.Module = made()
    if layers(model) > LAYERS:
        raise ValueError(f"more than {LAYERS} layers are described")
    return model


def layers(model: Any) -> int:
    """Returns a number that grows with the layers of a network, whatever its attributes; no network has fewer arrays.

    Raises:
      ValueError: its list of layers is not a list.
    """
    name = {"SpikingVGG": "channels", "SpikingResNet": "stages"}.get(type(model).__name__, "features")
    listed = getattr(model, name)
    if not isinstance(listed, list | tuple):
        raise ValueError(f"{name} is not a list")
    if name != "stages":
        return sum(entry != "M" for entry in listed) if len(listed) <= LAYERS else len(listed)
    if not all(isinstance(blocks, int) for blocks in listed):
        raise ValueError("stages are not numbers")
    return max(len(listed), sum(max(0, int(blocks)) for blocks in listed))


def _defaults(kind: Any) -> dict[str, Any]:
    """The attributes of a module's class and their defaults."""
    fields = [field for field in dataclasses.fields(kind) if field.name not in ("parent", "name")]
    return {field.name: field.default for field in fields}


def _name_of(value: Any, known: dict[str, Any]) -> str | None:
    def same(other: Any) -> bool:
        return value is other or bool(type(value) is type(other) and value == other)

    return next((name for name, other in known.items() if same(other)), None)


def _said(where: str, value: Any) -> Any:
    """A value in JSON form; where it occurs is for the message."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_said(where, item) for item in value]
    if isinstance(value, Surrogate):
        for surrogate, make in _SURROGATES.items():
            if make(value.alpha) == value:
                return {"surrogate": surrogate, "alpha": _said(where, value.alpha)}
    if (part := _name_of(value, _VALUES)) is not None:
        return {"value": part}
    kind = value.func if isinstance(value, functools.partial) else value
    if (module := _name_of(kind, _MODULES)) is not None:
        return {"module": module, "attributes": _attributes(where, kind, value)}
    raise CannotBeSaidError(f"{where}, {getattr(kind, '__qualname__', type(kind).__name__)}, is not a part of bsojax")


def _attributes(where: str, kind: Any, value: Any) -> dict[str, Any]:
    """All attributes of the modules that a class, or a partial call of it, creates."""
    attributes = _defaults(kind)
    given: dict[str, Any] = {}
    if isinstance(value, functools.partial):
        given = {**dict(zip(attributes, value.args, strict=False)), **value.keywords}
        if len(value.args) > len(attributes) or not given.keys() <= attributes.keys():
            raise CannotBeSaidError(f"{where} takes something that is not an attribute of {kind.__name__}")
    return {name: _said(f"{where}, {name}", item) for name, item in {**attributes, **given}.items()}


def _meant(value: Any) -> Any:
    """The value that a JSON form stands for."""
    if isinstance(value, list):
        return tuple(_meant(item) for item in value)
    if not isinstance(value, dict):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is not finite")
        return value
    if value.keys() == {"value"}:
        return _known(value["value"], _VALUES)
    if value.keys() == {"surrogate", "alpha"}:
        return _known(value["surrogate"], _SURROGATES)(_meant(value["alpha"]))
    if value.keys() == {"module", "attributes"}:
        return _made(value["module"], value["attributes"], _MODULES)
    raise ValueError("an attribute is of an unknown kind")


def _made(name: Any, said: Any, known: dict[str, Any]) -> Any:
    """Returns a class, or a partial call of it with the attributes that are not its defaults."""
    kind = _known(name, known)
    defaults = _defaults(kind)
    if not isinstance(said, dict) or not said.keys() <= defaults.keys():
        raise ValueError(f"{kind.__name__} has attributes that are not known")
    attributes = {name: _meant(item) for name, item in said.items()}
    other = {name: item for name, item in attributes.items() if not _same(item, defaults[name])}
    return functools.partial(kind, **other) if other else kind


def _known(name: Any, known: dict[str, Any]) -> Any:
    if not isinstance(name, str) or name not in known:
        raise ValueError("it has a part with an unknown name; was it saved by a newer bsojax?")
    return known[name]


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))
