"""Wrappers around a loss: which examples and time steps it uses, what it receives, and further terms."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.losses._loss import Loss, per_example, takes


@dataclasses.dataclass(frozen=True)
class Around:
    """A loss built on another one, to which it passes on whatever it does not use itself.

    Attributes:
      loss: the inner one.
    """

    loss: Loss

    @property
    def takes(self) -> frozenset[str]:
        """The arguments that it takes by name."""
        return takes(self.loss)

    def __call__(self, logits: Any, y: Any, **seen: Any) -> Any:
        return self.apply(self.loss, logits, y, seen)

    def per_example(self, logits: Any, y: Any, **seen: Any) -> Any:
        """Returns a value for each example."""
        return self.apply(per_example(self.loss), logits, y, seen)

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        """Returns this loss, with the inner one computed by ``inner``."""
        return inner(logits, y, **{name: seen[name] for name in takes(self.loss)})


@dataclasses.dataclass(frozen=True)
class Ignoring(Around):
    """The loss that ignoring returns, with the same attributes."""

    label: int = -1

    def counted(self, y: Any) -> jax.Array:
        """Returns where labels count: boolean, of the labels' shape."""
        _validate.labels_to_ignore(y)
        return jnp.asarray(y) != self.label

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        # The loss of such a label must be finite, whatever its value: its gradient is multiplied by zero.
        return super().apply(inner, logits, jnp.where(y == self.label, 0, y), seen)


@dataclasses.dataclass(frozen=True)
class AtLast(Around):
    """The loss that at_last returns."""


@dataclasses.dataclass(frozen=True)
class OnTotal(Around):
    """The loss that on_total returns."""

    @property
    def takes(self) -> frozenset[str]:
        return takes(self.loss) | {"total"}

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        del logits
        return super().apply(inner, seen["total"], y, seen)


@dataclasses.dataclass(frozen=True)
class WithSpikeRate(Around):
    """The loss that with_spike_rate returns, with the same attributes."""

    weight: float = 0.1
    target: float = 0.0
    layers: tuple[str, ...] | None = None

    @property
    def takes(self) -> frozenset[str]:
        return takes(self.loss) | {"spike_rates"}

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        rates: Mapping[str, jax.Array] = seen["spike_rates"]
        _validate.known_layers("layers", set(self.layers or ()) - set(rates))
        chosen = jnp.stack([rates[name] for name in self.layers or rates])
        return super().apply(inner, logits, y, seen) + self.weight * jnp.mean(jnp.square(chosen - self.target))


@dataclasses.dataclass(frozen=True)
class WithSown(Around):
    """The loss that with_sown returns, with the same attributes."""

    weight: float = 1.0

    @property
    def takes(self) -> frozenset[str]:
        return takes(self.loss) | {"sown"}

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        terms = [jnp.mean(term) for term in jax.tree.leaves(seen["sown"])]
        return super().apply(inner, logits, y, seen) + self.weight * sum(terms, start=jnp.zeros(()))


def ignoring(loss: Loss, label: int = -1) -> Ignoring:
    """Returns a loss that leaves out examples, or their time steps, with a given label: it is the mean over the others.

    Use it where some examples have no label. Their inputs still count in the norms' statistics; a mask leaves out both.

    Args:
      loss: a loss of class labels.
      label: the integer that stands for "none".

    Raises:
      ValueError: label is not an int, so that no label would equal it.
    """
    return Ignoring(loss, *_validate.whole("label", (label,)))


def at_last(loss: Loss) -> AtLast:
    """Returns a loss that uses only the last time step of a sequence; there is no update at the others.

    Use it where the answer can only be known at the end. With a mask, each example's own last time step is used.
    Metrics use the same step. Nothing flows back through time: earlier time steps learn through the traces.
    """
    return AtLast(loss)


def on_total(loss: Loss) -> OnTotal:
    """Returns a loss of the sum of the model's outputs so far, such as spike counts, at each time step.

    Use it where the answer is read from sums over time. The gradient is that of this time step's share of the sum.
    """
    return OnTotal(loss)


def with_spike_rate(
    loss: Loss, weight: float = 0.1, target: float = 0.0, layers: tuple[str, ...] | None = None
) -> WithSpikeRate:
    """Returns a loss with ``weight * mean((rate - target)^2)`` over the neuron layers.

    Use it for networks that are silent or fire too often. A layer's rate is its mean spike at this time step.

    Args:
      loss: any loss.
      weight: the weight of the term.
      target: spikes per neuron and time step, in 0 .. 1.
      layers: the names of the layers, as in ``metrics["spikes"]``; None means all.

    Raises:
      ValueError: weight is not finite, or target is out of range; at a call, the model has no layer of that name.
    """
    _validate.finite("with_spike_rate", "weight", weight)
    return WithSpikeRate(loss, weight, _validate.number("target", target, 0, 1), layers)


def with_sown(loss: Loss, weight: float = 1.0) -> WithSown:
    """Returns a loss that adds what the model sowed into the collection "losses", each entry the mean of its elements.

    Use it with models that call ``self.sow("losses", name, value)``; a loss that does not take these values is refused.

    Raises:
      ValueError: weight is not finite.
    """
    _validate.finite("with_sown", "weight", weight)
    return WithSown(loss, weight)
