"""What goes around a loss: which examples and time steps it looks at, what it looks at, and further terms."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.losses._loss import Loss, per_example, takes


@dataclasses.dataclass(frozen=True)
class Around:
    """A loss made of another one; what it does not use itself it hands on.

    Attributes:
      loss: the inner one.
    """

    loss: Loss

    @property
    def takes(self) -> frozenset[str]:
        """What it takes by name."""
        return takes(self.loss)

    def __call__(self, logits: Any, y: Any, **seen: Any) -> Any:
        return self.apply(self.loss, logits, y, seen)

    def per_example(self, logits: Any, y: Any, **seen: Any) -> Any:
        """Returns a value for each example."""
        return self.apply(per_example(self.loss), logits, y, seen)

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        """Returns this loss where the inner one is computed by ``inner``."""
        return inner(logits, y, **{name: seen[name] for name in takes(self.loss)})


@dataclasses.dataclass(frozen=True)
class Ignoring(Around):
    """The loss that ignoring returns; attributes as there."""

    label: int = -1

    def counted(self, y: Any) -> jax.Array:
        """Returns where labels count: boolean, of the labels' shape."""
        _validate.labels_to_ignore(y)
        return jnp.asarray(y) != self.label

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        # Whatever the loss makes of such a label must be finite: its gradient is multiplied by zero.
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
    """The loss that with_spike_rate returns; attributes as there."""

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
    """The loss that with_sown returns; attributes as there."""

    weight: float = 1.0

    @property
    def takes(self) -> frozenset[str]:
        return takes(self.loss) | {"sown"}

    def apply(self, inner: Loss, logits: Any, y: Any, seen: dict[str, Any]) -> Any:
        terms = [jnp.mean(term) for term in jax.tree.leaves(seen["sown"])]
        return super().apply(inner, logits, y, seen) + self.weight * sum(terms, start=jnp.zeros(()))


def ignoring(loss: Loss, label: int = -1) -> Ignoring:
    """Returns a loss that leaves out examples, or time steps of them, of a label: the mean is that of the others.

    Use it where not all examples have a label. Their inputs count in the norms' statistics; a mask leaves out both.

    Args:
      loss: a loss of class labels.
      label: the integer that stands for "none".

    Raises:
      ValueError: label is no int, which no label would equal.
    """
    return Ignoring(loss, *_validate.whole("label", (label,)))


def at_last(loss: Loss) -> AtLast:
    """Returns a loss that looks at the last time step of a sequence alone; there is no update at the others.

    Use it where an answer can be known at the end only. With a mask it is the last time step that each example has.
    Metrics look at the same step. Nothing flows back through time: earlier time steps learn through the traces.
    """
    return AtLast(loss)


def on_total(loss: Loss) -> OnTotal:
    """Returns a loss of the sum of what the model has returned so far, such as spike counts, at each time step.

    Use it where the answer is read from sums over time. The gradient is that of this time step's share.
    """
    return OnTotal(loss)


def with_spike_rate(
    loss: Loss, weight: float = 0.1, target: float = 0.0, layers: tuple[str, ...] | None = None
) -> WithSpikeRate:
    """Returns a loss with ``weight * mean((rate - target)^2)`` over the neuron layers.

    Use it for networks that are silent or fire too often. A rate is the mean spike of a layer at this time step.

    Args:
      loss: any loss.
      weight: of the term.
      target: spikes a neuron and time step, in 0 .. 1.
      layers: the names of the layers, as in ``metrics["spikes"]``; None: all.

    Raises:
      ValueError: weight is not finite, target is out of range; at a call, the model has no layer of such a name.
    """
    _validate.finite("with_spike_rate", "weight", weight)
    return WithSpikeRate(loss, weight, _validate.number("target", target, 0, 1), layers)


def with_sown(loss: Loss, weight: float = 1.0) -> WithSown:
    """Returns a loss with the sum of what the model sowed into the collection "losses", each the mean of its elements.

    Use it with models that call ``self.sow("losses", name, value)``; a loss that does not take these is refused.

    Raises:
      ValueError: weight is not finite.
    """
    _validate.finite("with_sown", "weight", weight)
    return WithSown(loss, weight)
